package cli

import (
	"bytes"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newGet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Print the value of a key, alone: JSON as it was stored and a line break, bytes and
text as they are. With -o json its version, times and content type too.`,
		Args: args(cobra.ExactArgs(1)),
	}
	var revision, at string
	r := remoteFlags(cmd)
	cmd.Flags().StringVar(&revision, "revision", "", "the version with this UUID (see kvs history)")
	cmd.Flags().StringVar(&at, "at", "", "the version of that time: 2026-01-31T15:04:05Z, Unix milliseconds, or how long ago, like 90m")
	cmd.MarkFlagsMutuallyExclusive("revision", "at")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		version := client.Version{UUID: revision}
		var err error
		if version.At, err = parseMoment("at", at, time.Now()); err != nil {
			return err
		}
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		out := cmd.OutOrStdout()
		if r.json() {
			item, err := c.GetVersion(cmd.Context(), args[0], version)
			if err != nil {
				return err
			}
			return printJSON(out, item)
		}
		raw, err := c.GetRawVersion(cmd.Context(), args[0], version)
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
