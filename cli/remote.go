package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"kvs/client"
	"kvs/utils/duration"
)

// remote holds the flags of every command that talks to a node.
type remote struct {
	url    string
	caFile string
	config string
	output string

	access *access // how the command shows who it is, once it was looked for
}

// remoteFlags gives cmd these flags.
func remoteFlags(cmd *cobra.Command) *remote {
	r := &remote{}
	cmd.Flags().StringVar(&r.url, "url", "", "the node to talk to (default $KVS_URL, else "+client.DefaultURL+")")
	cmd.Flags().StringVar(&r.caFile, "ca-file", "", "the CA that signed the certificates of nodes with TLS (default $KVS_CA_FILE, else those of the system)")
	cmd.Flags().StringVar(&r.config, "config", "", "the configuration that names the cluster secret, unless $KVS_TOKEN is set (default ./config.yaml if there is one)")
	cmd.Flags().StringVarP(&r.output, "output", "o", "text", "text for people, or json")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if r.output != "text" && r.output != "json" {
			return usagef("--output takes text or json, not %q", r.output)
		}
		// Whichever call was refused for want of a token, the remedy is told.
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return r.explain(run(cmd, args)) }
		return nil
	}
	return r
}

// onNode makes a subcommand that makes calls to a node.
func onNode(use, short string, check cobra.PositionalArgs,
	run func(cmd *cobra.Command, c *client.Client, r *remote, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args(check)}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd, c, r, args)
	}
	return cmd
}

func (r *remote) json() bool { return r.output == "json" }

// connect gives a client of the node that the command is to talk to.
func (r *remote) connect() (*client.Client, error) {
	return r.connectTo(cmp.Or(r.url, os.Getenv("KVS_URL")))
}

// connectTo gives a client of another node of the cluster.
func (r *remote) connectTo(url string) (*client.Client, error) {
	if r.access == nil {
		a, err := findAccess(r.config)
		if err != nil {
			return nil, err
		}
		r.access = &a
	}
	c, err := client.New(client.Options{
		URL:         url,
		CAFile:      cmp.Or(r.caFile, os.Getenv("KVS_CA_FILE")),
		Token:       r.access.token,
		TokenSource: r.access.source,
	})
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// explain adds the remedy to a refusal for want of a token.
func (r *remote) explain(err error) error {
	if r.access == nil || !errors.Is(err, client.ErrUnauthorized) {
		return err
	}
	return fmt.Errorf("%w\n%s", err, r.access.hint())
}

// writeFlags are those of commands that write one key.
type writeFlags struct {
	ifMatch string
	w       string
	timeout time.Duration
}

func (f *writeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.ifMatch, "if-match", "", "only over the version with this UUID")
	cmd.Flags().StringVarP(&f.w, "w", "w", "", "answer once this many nodes have it: a number, quorum or all (default 1)")
	cmd.Flags().Var(durationFlag{&f.timeout}, "timeout", "how long to wait for them (default 5s)")
}

func (f *writeFlags) replicas() client.Replicas {
	return client.Replicas{W: f.w, Timeout: f.timeout}
}

// durationFlag takes days too, as everywhere in the store.
type durationFlag struct{ d *time.Duration }

func (f durationFlag) Type() string { return "duration" }

func (f durationFlag) String() string {
	if f.d == nil || *f.d == 0 {
		return ""
	}
	return f.d.String()
}

func (f durationFlag) Set(s string) (err error) {
	*f.d, err = duration.Parse(s)
	return err
}

// printJSON writes v on one line.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table writes aligned columns; the rows are complete once flushed.
func table(w io.Writer, header ...string) (row func(cells ...string), flush func() error) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row = func(cells ...string) {
		io.WriteString(t, strings.Join(cells, "\t")+"\n") // its error comes back from Flush
	}
	row(header...)
	return row, t.Flush
}

// details writes names and values, aligned, one pair a line.
func details(w io.Writer, pairs ...string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i < len(pairs); i += 2 {
		io.WriteString(t, pairs[i]+"\t"+pairs[i+1]+"\n") // its error comes back from Flush
	}
	return t.Flush()
}

// visible writes what is not printable as Go escapes. Strangers choose some of
// what is shown, and must not draw on an administrator's terminal.
func visible(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) || r == utf8.RuneError }) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// when shows Unix milliseconds in the reader's time zone.
func when(ms int64) string { return time.UnixMilli(ms).Format("2006-01-02 15:04:05.000") }
