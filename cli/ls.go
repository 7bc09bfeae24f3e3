package cli

import (
	"bufio"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newLs() *cobra.Command {
	var (
		o      client.RangeOptions
		limit  int
		values bool
	)
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List the keys that begin with a prefix",
		Long: `List the keys that begin with PREFIX, or all of them, in byte order, one a line.

  kvs ls users/                list the keys below users/
  kvs ls --delimiter /         list the first segments only, as of directories
  kvs ls users/ --values       list keys and values, with a tab between`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	r := remoteFlags(cmd)
	cmd.Flags().StringVar(&o.Start, "start", "", "begin at this key")
	cmd.Flags().StringVar(&o.End, "end", "", "end before this key")
	cmd.Flags().StringVar(&o.Delimiter, "delimiter", "", "list what goes on behind it as one entry")
	cmd.Flags().BoolVar(&o.Reverse, "reverse", false, "from the last key to the first")
	cmd.Flags().IntVar(&limit, "limit", 0, "list this many at most (default all)")
	cmd.Flags().BoolVar(&values, "values", false, "list the values too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return usagef("--limit must not be negative")
		}
		if len(args) > 0 {
			o.Prefix = args[0]
		}
		o.KeysOnly = !values
		if limit > 0 && limit < 1000 {
			o.PageSize = limit
		}
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		out := bufio.NewWriter(cmd.OutOrStdout())
		if err := list(cmd, c, o, limit, r.json(), out); err != nil {
			out.Flush() // what was listed so far; the first error is the one to tell
			return err
		}
		return out.Flush()
	}
	return cmd
}

func list(cmd *cobra.Command, c *client.Client, o client.RangeOptions, limit int, asJSON bool, out io.Writer) error {
	n := 0
	full := func() bool { n++; return n == limit }
	for page, err := range c.Pages(cmd.Context(), o) {
		if err != nil {
			return err
		}
		for entry := range inOrder(page, o.Reverse) {
			if err := printEntry(out, entry, o.KeysOnly, asJSON); err != nil || full() {
				return err
			}
		}
	}
	return nil
}

// inOrder merges the keys and the prefixes of a page, each of which is in order
// already. A prefix has no UUID.
func inOrder(p client.Page, reverse bool) func(yield func(client.Item) bool) {
	before := func(a, b string) bool { return a < b != reverse }
	return func(yield func(client.Item) bool) {
		items, prefixes := p.Items, p.Prefixes
		for len(items) > 0 || len(prefixes) > 0 {
			var next client.Item
			if len(prefixes) == 0 || len(items) > 0 && before(items[0].Key, prefixes[0]) {
				next, items = items[0], items[1:]
			} else {
				next, prefixes = client.Item{Key: prefixes[0]}, prefixes[1:]
			}
			if !yield(next) {
				return
			}
		}
	}
}

func printEntry(out io.Writer, it client.Item, keysOnly, asJSON bool) error {
	var err error
	switch {
	case asJSON && it.UUID == "":
		err = printJSON(out, map[string]string{"prefix": it.Key})
	case asJSON:
		err = printJSON(out, it)
	case keysOnly || it.UUID == "":
		_, err = fmt.Fprintln(out, it.Key)
	default:
		_, err = fmt.Fprintf(out, "%s\t%s\n", it.Key, it.Data)
	}
	return err
}
