package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kvs/types"
)

// Process is the surroundings of one run of the command line. The environment
// is that of the operating system's process.
type Process struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	DefaultConfig  []byte // the commented config.yaml, written on the first run
	Version        string
}

// Run carries out a command line and gives the process's exit code. It returns
// soon after ctx has ended.
func Run(ctx context.Context, p Process) int {
	root := newRoot(p)
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	fmt.Fprintf(p.Stderr, "kvs: %v\n", err)
	switch {
	case code == exitUsage:
		fmt.Fprintf(p.Stderr, "See %s --help.\n", cmd.CommandPath())
	case errors.Is(err, types.ErrUnreachable):
		fmt.Fprintln(p.Stderr, "Is a node running there? Plain `kvs` starts one; --url or KVS_URL names another.")
	}
	return code
}

const rootLong = `KVS is a clustered key-value store that stays available: every node takes reads
and writes, and the nodes converge by themselves.

Without a subcommand it serves: with ./config.yaml, which is written with its
comments on the first run, or with the configuration file that is named. Ctrl-C
or SIGTERM stops it gracefully; a second one at once.

  kvs                     serve on 127.0.0.1:8080
  kvs demo                see three nodes at work, with nothing to set up
  kvs put greeting hello  store a value
  kvs get greeting        read it

Commands that talk to a node find it by --url, else KVS_URL, else
http://127.0.0.1:8080. They send KVS_TOKEN if it is set; else, on a machine that
has the cluster secret (KVS_CLUSTER_SECRET, else as --config or ./config.yaml
says, else this user's automatic file), a token of five minutes made from it.

Exit codes:
  0    done
  1    failed; standard error says why (a node: it must not or cannot run)
  2    the command line is wrong
  3    the key, member or version does not exist
  4    a condition did not hold (--if-match, --if-absent)
  5    no node answered
  130  interrupted (a node stops with 0 after one signal; 130 or 143 after a
       second one)`

func newRoot(p Process) *cobra.Command {
	root := &cobra.Command{
		Use:           "kvs [config.yaml]",
		Short:         "A clustered key-value store that stays available",
		Long:          rootLong,
		Version:       p.Version,
		Args:          args(cobra.MaximumNArgs(1)),
		SilenceErrors: true, // Run prints them
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return serve(cmd, args, p)
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate("kvs {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddGroup(
		&cobra.Group{ID: "data", Title: "Data:"},
		&cobra.Group{ID: "look", Title: "Cluster:"},
		&cobra.Group{ID: "trust", Title: "Access:"},
		&cobra.Group{ID: "rest", Title: "More:"},
	)
	group := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("data", newGet(), newPut(), newDel(), newLs(), newWatch(), newBatch(), newHistory(), newStat(), newChmod(), newChown(), newConflicts(), newImport(), newExport())
	group("look", newMembers(), newStatus(), newHealth())
	group("trust", newToken(), newUser(), newGroup(), newWhoami(), newSecret(), newTLS(), newAudit(storedAudit{}))
	group("rest", newBackup(), newRestore(), newDemo(p.Version), newConfig(), newConflict())
	root.SetHelpCommandGroupID("rest")
	root.SetCompletionCommandGroupID("rest")
	return root
}

// args makes a wrong number of arguments an error of usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// isTerminal tells whether a person looks at the stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
