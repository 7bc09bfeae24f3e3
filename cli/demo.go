package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
)

func newDemo(version string) *cobra.Command {
	var once, verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show three nodes at work, with nothing to set up",
		Long: `Start three nodes in this process, on loopback and with data in a temporary
directory; write through one and read on the others; break a link, write one key
on both sides, heal the link, and see the nodes agree again. The nodes then stay
up, to try things on, until Ctrl-C; their data is removed.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the show")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "print the nodes' logs too, on standard error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log := slog.New(slog.DiscardHandler)
		if verbose {
			log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
		}
		err := runDemo(cmd.Context(), cmd.OutOrStdout(), log, version, once)
		if errors.Is(err, context.Canceled) {
			return err
		}
		return plain(err)
	}
	return cmd
}

// runDemo gives the first failure of a step, of a node, or of cleaning up.
func runDemo(ctx context.Context, out io.Writer, log *slog.Logger, version string, once bool) (err error) {
	nodes, err := startDemoNodes(ctx, log, version)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nodes.stop()) }()

	// A node that ends by itself ends the show, with its reason.
	if err := tellDemo(nodes.ctx, out, nodes); err != nil {
		if failed := nodes.failure(); failed != nil {
			err = failed
		}
		return err
	}
	if once {
		return nil
	}
	fmt.Fprintln(out, "\nThe nodes stay up until Ctrl-C. From another terminal:")
	fmt.Fprintf(out, "  kvs get --url %s %s\n", nodes.urls[0], demoKey)
	fmt.Fprintf(out, "  kvs conflicts --url %s\n  curl %s/members/\n", nodes.urls[1], nodes.urls[2])
	<-nodes.ctx.Done()
	if ctx.Err() == nil {
		return nodes.failure()
	}
	fmt.Fprintln(out, "\nstopping the nodes and removing their data")
	return nil
}
