package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"kvs/client"
)

// maxStdin bounds a value read from standard input. Nodes refuse far smaller
// ones; this keeps a wrong pipe from filling the memory first.
const maxStdin = 64 << 20

func newPut() *cobra.Command {
	var (
		write       writeFlags
		ttl         time.Duration
		ifAbsent    bool
		contentType string
	)
	cmd := &cobra.Command{
		Use:   "put KEY VALUE",
		Short: "Store a value under a key",
		Long: `Store VALUE under KEY: as JSON if it parses as JSON, else as text. A VALUE of -
is read from standard input. Put -- before a VALUE that begins with a dash.

  kvs put greeting hello
  kvs put users/7 '{"name":"Ada"}' --ttl 7d
  kvs put logo - --content-type image/png < logo.png
  kvs put balance -- -5`,
		Args: args(cobra.ExactArgs(2)),
	}
	r := remoteFlags(cmd)
	write.add(cmd)
	cmd.Flags().Var(durationFlag{&ttl}, "ttl", "forget the value after this time, such as 30s, 1h or 7d")
	cmd.Flags().BoolVar(&ifAbsent, "if-absent", false, "only if the key has no value")
	cmd.Flags().StringVar(&contentType, "content-type", "", "store the bytes under this type, and do not look whether they are JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, value := args[0], []byte(args[1])
		if args[1] == "-" {
			var err error
			if value, err = readAll(cmd.InOrStdin(), maxStdin); err != nil {
				return err
			}
		}
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		o := client.PutOptions{TTL: ttl, IfMatch: write.ifMatch, IfAbsent: ifAbsent, Replicas: write.replicas()}
		var written client.Written
		if contentType == "" && json.Valid(value) {
			written, err = c.Put(cmd.Context(), key, json.RawMessage(value), o)
		} else {
			written, err = c.PutRaw(cmd.Context(), key, value, textType(contentType, value), o)
		}
		if err != nil {
			return err
		}
		return printWritten(cmd.OutOrStdout(), r, key, written)
	}
	return cmd
}

func printWritten(out io.Writer, r *remote, key string, w client.Written) error {
	if r.json() {
		return printJSON(out, w)
	}
	verb := "updated"
	if w.Created {
		verb = "created"
	}
	text := fmt.Sprintf("%s %s (version %s", verb, key, w.UUID)
	if w.Replicas > 0 {
		text += fmt.Sprintf(", on %d nodes", w.Replicas)
	}
	_, err := fmt.Fprintln(out, text+")")
	return err
}

// textType is the content type of a value that is not JSON.
func textType(asked string, value []byte) string {
	switch {
	case asked != "":
		return asked
	case utf8.Valid(value):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

func readAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("standard input: more than %d bytes", most)
	}
	return b, nil
}
