package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
)

// experiment is one measurement that can be run alone.
type experiment struct {
	name  string
	about string
	run   func(ctx context.Context, b *bench) error
}

var experiments = []experiment{
	{"http", "GET and durable PUT against a bare net/http handler", runHTTP},
	{"trust", "what tokens and the tamper log cost", runTrust},
	{"lag", "time from the answer on one node to readable on another", runLag},
	{"import", "documents into one node of three until all roots are equal", runImport},
	{"disk", "bytes on disk with compression and without", runDisk},
	{"merkle", "bytes and round trips to find differing keys among many", runMerkle},
	{"restart", "start of a node with many keys until it serves", runRestart},
	{"join", "an empty node joins one with many keys", runJoin},
}

// bench is what the experiments share.
type bench struct {
	dir     string // temporary, removed at the end
	binary  string // the node, built from this tree
	token   string // of the admin scope, for all nodes
	keys    int    // of the experiments with many keys
	seconds int    // of each measured run
	docs    string // JSON lines for import; empty = generated documents
	rows    []row
}

// row is a line of the table.
type row struct{ what, figure, against, command string }

func (b *bench) report(r row) {
	b.rows = append(b.rows, r)
	fmt.Fprintf(os.Stderr, "  %s: %s (%s)\n", r.what, r.figure, r.against)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == bareCommand {
		return serveBare(ctx)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var names []string
	for _, e := range experiments {
		names = append(names, e.name)
	}
	only := flags.String("run", strings.Join(names, ","), "experiments to run, comma-separated")
	list := flags.Bool("list", false, "list the experiments and stop")
	b := &bench{}
	flags.IntVar(&b.keys, "keys", 1_000_000, "keys of the experiments with many keys")
	flags.IntVar(&b.seconds, "seconds", 5, "length of each measured run")
	flags.StringVar(&b.docs, "docs", "", "JSON lines file ({\"key\":…,\"value\":…}, may be .gz or .zst) for import; generated documents if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, e := range experiments {
			fmt.Printf("%-8s %s\n", e.name, e.about)
		}
		return nil
	}
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("no experiment %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "kvs-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := b.build(ctx); err != nil {
		return err
	}
	for _, e := range experiments {
		if !slices.Contains(chosen, e.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", e.name, e.about)
		if err := e.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	b.print()
	return nil
}

func (b *bench) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "what\tfigure\tagainst\tcommand")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.what, r.figure, r.against, r.command)
	}
	w.Flush()
}
