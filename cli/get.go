package cli

import (
	"bytes"
	"strings"

	"github.com/spf13/cobra"
)

func newGet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Print the value of a key, alone: JSON as it was stored and a line break, bytes and
text as they are. With -o json its version, times and content type too.`,
		Args: args(cobra.ExactArgs(1)),
	}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		out := cmd.OutOrStdout()
		if r.json() {
			item, err := c.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printJSON(out, item)
		}
		raw, err := c.GetRaw(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		value := raw.Value
		// White space around JSON means nothing, so a line break may be added for
		// whoever reads line by line. Bytes are changed for a terminal only.
		isJSON := strings.HasPrefix(raw.ContentType, "application/json")
		if (isJSON || isTerminal(out)) && !bytes.HasSuffix(value, []byte("\n")) {
			value = append(value, '\n')
		}
		_, err = out.Write(value)
		return err
	}
	return cmd
}
