package cli

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kvs/client"
	"kvs/utils/duration"
)

// remote holds the flags of every command that talks to a node.
type remote struct {
	url    string
	output string
}

// remoteFlags gives cmd these flags.
func remoteFlags(cmd *cobra.Command) *remote {
	r := &remote{}
	cmd.Flags().StringVar(&r.url, "url", "", "the node to talk to (default $KVS_URL, else "+client.DefaultURL+")")
	cmd.Flags().StringVarP(&r.output, "output", "o", "text", "text for people, or json")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if r.output != "text" && r.output != "json" {
			return usagef("--output takes text or json, not %q", r.output)
		}
		return nil
	}
	return r
}

func (r *remote) json() bool { return r.output == "json" }

func (r *remote) connect() (*client.Client, error) {
	url := r.url
	if url == "" {
		url = os.Getenv("KVS_URL")
	}
	c, err := connectTo(url)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

func connectTo(url string) (*client.Client, error) {
	return client.New(client.Options{URL: url, Token: os.Getenv("KVS_TOKEN")})
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

// when shows Unix milliseconds in the reader's time zone.
func when(ms int64) string { return time.UnixMilli(ms).Format("2006-01-02 15:04:05.000") }
