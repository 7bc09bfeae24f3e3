package cli

import (
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"kvs/client"
)

func newWatch() *cobra.Command {
	var since string
	cmd := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Print what happens to the keys that begin with a prefix",
		Long: `Print what happens to the keys that begin with PREFIX, or to all of them, one
event a line, until Ctrl-C: the time of the write, what it was (put, delete or
expire), the key and its value, with tabs between.

A connection that breaks is resumed without a gap; events around the break may
then come twice. --since takes the id of an event (-o json shows it), or the
sequence of a list, and first prints what happened behind it.

  kvs watch users/             from now on
  kvs watch users/ -o json     one JSON document a line, with its id`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	r := remoteFlags(cmd)
	cmd.Flags().StringVar(&since, "since", "", "go on behind the event with this id")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		o := client.WatchOptions{Since: since, Lost: lost(cmd.ErrOrStderr())}
		if len(args) > 0 {
			o.Prefix = args[0]
		}
		for e, err := range c.Watch(cmd.Context(), o) {
			switch {
			case cmd.Context().Err() != nil:
				return nil // Ctrl-C is how it ends
			case err != nil:
				return err
			}
			if err := printEvent(cmd.OutOrStdout(), e, r.json()); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// noteEvery is how often it is said at most that connections break.
const noteEvery = 10 * time.Second

// lost says that the connection is lost, where that does not happen all the time.
func lost(out io.Writer) func(error, time.Duration) {
	var said time.Time
	return func(err error, _ time.Duration) {
		if time.Since(said) < noteEvery {
			return
		}
		said = time.Now()
		fmt.Fprintf(out, "connection lost, trying to resume: %v\n", err)
	}
}

// printEvent writes an event on one line.
func printEvent(out io.Writer, e client.Event, asJSON bool) error {
	if asJSON {
		return printJSON(out, e)
	}
	at := e.Timestamp
	if e.Type == "expire" {
		at = e.ExpiresAt
	}
	line := when(at) + "\t" + visible(e.Type) + "\t" + visible(e.Key)
	if e.Type == "put" {
		value, err := e.Bytes()
		if err != nil {
			return err
		}
		if utf8.Valid(value) {
			line += "\t" + visible(string(value))
		} else {
			line += fmt.Sprintf("\t(%d bytes, %s)", len(value), visible(e.ContentType))
		}
	}
	_, err := fmt.Fprintln(out, line)
	return err
}
