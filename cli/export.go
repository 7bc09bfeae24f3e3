package cli

import (
	"bufio"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newExport() *cobra.Command {
	var o client.RangeOptions
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write keys and values as JSON lines, as import reads them",
		Long: `Write the keys and values that the token may read to standard output, in order of
keys, one JSON object a line: {"key":…,"value":…}; of bytes and text the value is
in base64, with a "content_type". "kvs import" reads such a file.

It is no backup: no history, no permissions, no expiry times; and what changes
while it runs may be in it or not.`,
		Args: args(cobra.NoArgs),
	}
	r := remoteFlags(cmd)
	cmd.Flags().StringVar(&o.Prefix, "prefix", "", "only keys that begin with this")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		out := bufio.NewWriter(cmd.OutOrStdout())
		for item, err := range c.Range(cmd.Context(), o) {
			if err == nil {
				err = exportLine(out, item)
			}
			if err != nil {
				out.Flush() // what was read so far; the first error is the one to tell
				return err
			}
		}
		return out.Flush()
	}
	return cmd
}

// exportLine writes what importLine reads.
func exportLine(out io.Writer, item client.Item) error {
	line := struct {
		Key         string          `json:"key"`
		Value       json.RawMessage `json:"value"`
		ContentType string          `json:"content_type,omitempty"`
	}{item.Key, item.Data, item.ContentType}
	// The encoder leaves numbers and strings of the value as they are, and takes
	// out white space alone: so it is one line.
	return printJSON(out, line)
}
