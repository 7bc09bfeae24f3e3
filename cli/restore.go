package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvs/client"
	"kvs/server"
)

const restoreLong = `Bring a backup back. The files are verified as a whole before anything is written.

Without --merge, into the empty data directory of a node that does not run (data_dir
of the configuration that --config names, else of ./config.yaml): the node that is
then started on it is a new one, alone in a cluster of its own, which others may
join. Keys, permissions, expiry, users, groups, revocations, conflicts and history
are as they were; the roster of the old cluster stays behind. Start such a node only
when the old cluster is gone, or give it another cluster secret.

With --merge, into the cluster of a node that runs (--url): what it lost comes back,
what is newer there stays, and deleted keys stay deleted. A key that the cluster has
not (any longer) it may have deleted so long ago that it has forgotten that; such
keys are counted and left out, unless --missing says to bring them back.

An incremental backup needs those that it follows, which are looked for beside it.
Where a single full backup is named, those that follow it are restored as well,
unless --only is set.

--at restores the state as of a time, from the versions in the backups. A time is
written like 2026-01-31T15:04:05Z, as Unix milliseconds, or as how long ago: 90m, 7d.

  kvs restore backups/kvs-n1-20260131T000000Z-full.kvsb
  kvs restore --at 2026-01-31T12:00:00Z backups/kvs-n1-20260131T000000Z-full.kvsb
  kvs restore --merge --dry-run backups/kvs-n1-20260131T000000Z-full.kvsb`

func newRestore() *cobra.Command {
	var (
		o              server.OfflineRestore
		merge, missing bool
		at             string
	)
	cmd := &cobra.Command{
		Use:   "restore FILE...",
		Short: "Bring a backup back: into an empty data directory, or a running cluster",
		Long:  restoreLong,
		Args:  args(cobra.MinimumNArgs(1)),
	}
	r := remoteFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&at, "at", "", "restore the state as of this time")
	flags.BoolVar(&o.DryRun, "dry-run", false, "say what would change, and change nothing")
	flags.BoolVar(&merge, "merge", false, "merge into the cluster of a running node")
	flags.BoolVar(&missing, "missing", false, "with --merge: bring back keys that the cluster may have deleted and forgotten")
	flags.BoolVar(&o.Only, "only", false, "not the incremental backups that follow a full one")
	flags.BoolVar(&o.SkipUnknown, "skip-unknown", false, "with --at: leave out keys of which no backup tells what they were then")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if o.At, err = parseMoment("at", at, time.Now()); err != nil {
			return err
		}
		o.Files = args
		switch {
		case merge && (at != "" || o.SkipUnknown):
			return usagef("--at and --skip-unknown are for an empty data directory: a cluster keeps what is newer")
		case merge:
			return mergeBackups(cmd, r, o, missing)
		case missing:
			return usagef("--missing goes with --merge")
		case r.url != "":
			return usagef("--url goes with --merge; without it, a restore is into the data directory of a node that does not run")
		}
		var config []string
		if r.config != "" {
			config = []string{r.config}
		}
		if o.Config, err = r.offlineConfig(config); err != nil {
			return err
		}
		o.Progress = restoreProgress(cmd.ErrOrStderr())
		report, err := o.Do(cmd.Context())
		if err != nil {
			return plainUnlessInterrupted(err)
		}
		if r.json() {
			err = printJSON(cmd.OutOrStdout(), report)
		} else {
			err = printRestored(cmd.OutOrStdout(), report)
		}
		if seeds := o.Config.SeedNodes; len(seeds) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "seed_nodes is set: the node joins whom it finds at %s. If that is the old cluster, "+
				"keys come back that were deleted there; take the setting out, or set another cluster secret\n", strings.Join(seeds, ", "))
		}
		return err
	}
	return cmd
}

// plainUnlessInterrupted hides what an error wraps: none of it is about a key or a
// condition that the command line names.
func plainUnlessInterrupted(err error) error {
	if errors.Is(err, context.Canceled) {
		return errInterrupted
	}
	return plain(err)
}

// restoreProgress tells now and then how far a restore is.
func restoreProgress(out io.Writer) func(what string, done, of uint64) {
	last := time.Now()
	return func(what string, done, of uint64) {
		if time.Since(last) < lineEvery {
			return
		}
		last = time.Now()
		if of == 0 {
			fmt.Fprintln(out, what)
			return
		}
		fmt.Fprintf(out, "%s: %d of about %d keys\n", what, done, of)
	}
}

func printRestored(out io.Writer, r server.RestoreReport) error {
	for _, b := range r.Backups {
		if _, err := fmt.Fprintf(out, "%s: %s of %s at %s, %s\n", visible(b.Name), b.Type, visible(b.Node), when(b.Created), count(b.Records, "record")); err != nil {
			return err
		}
	}
	what := "restored into " + r.Dir
	if r.DryRun {
		what = "would be restored into " + r.Dir
	}
	if _, err := fmt.Fprintln(out, what); err != nil {
		return err
	}
	pairs := []string{
		"values", fmt.Sprint(r.Live),
		"expired since", fmt.Sprint(r.Expired),
		"deleted keys", fmt.Sprint(r.Tombstones),
		"older versions", fmt.Sprint(r.Older),
		"left behind", count(r.Left, "record") + " of the old cluster's own",
	}
	if r.Unknown > 0 {
		pairs = append(pairs, "LEFT OUT", count(r.Unknown, "key")+" of which no backup tells what they were then")
	}
	if r.Damaged > 0 {
		pairs = append(pairs, "NOT IN THE BACKUP", count(r.Damaged, "key")+" that the node could not read when it was made")
	}
	if r.Node != "" {
		pairs = append(pairs, "new node", r.Node)
	}
	return details(out, pairs...)
}

// mergeBackups sends a chain of files to a node.
func mergeBackups(cmd *cobra.Command, r *remote, o server.OfflineRestore, missing bool) error {
	paths, err := server.BackupChain(o.Files, o.Only)
	if err != nil {
		return plain(err)
	}
	body, total, closeAll, err := openAll(paths)
	if err != nil {
		return err
	}
	defer closeAll()
	c, err := r.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := c.MergeBackup(cmd.Context(), body, total, client.MergeOptions{DryRun: o.DryRun, Missing: missing})
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if r.json() {
		err = printJSON(out, res)
	} else {
		err = printMerged(out, paths, res)
	}
	if res.Refused > 0 {
		err = errors.Join(err, fmt.Errorf("%s refused, the first because: %s", count(res.Refused, "record"), visible(res.Refusal)))
	}
	return err
}

// openAll gives the files one after another.
func openAll(paths []string) (body io.Reader, total int64, close func(), err error) {
	var files []*os.File
	var readers []io.Reader
	close = func() {
		for _, f := range files {
			f.Close() // read only
		}
	}
	for _, path := range paths {
		f, n, err := openFile(path)
		if err != nil {
			close()
			return nil, 0, nil, err
		}
		files, readers, total = append(files, f), append(readers, f), total+n
	}
	return io.MultiReader(readers...), total, close, nil
}

func printMerged(out io.Writer, paths []string, r client.MergedBackup) error {
	for _, path := range paths {
		if _, err := fmt.Fprintln(out, path); err != nil {
			return err
		}
	}
	merged := "merged"
	if r.DryRun {
		merged = "would be merged"
	}
	pairs := []string{
		merged, fmt.Sprint(r.Merged),
		"known already", fmt.Sprint(r.Known),
		"deleted or expired", fmt.Sprint(r.Purged),
		"left behind", count(r.Left, "record") + " of the backup's own cluster",
	}
	if r.Missing > 0 {
		pairs = append(pairs, "LEFT OUT", count(r.Missing, "key")+" that the cluster has not, and may have deleted (--missing brings them back)")
	}
	return details(out, pairs...)
}
