package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"kvs/client"
	"kvs/utils/duration"
)

func newBatch() *cobra.Command {
	var atomic bool
	cmd := &cobra.Command{
		Use:   "batch [FILE]",
		Short: "Carry out many operations in one call",
		Long: `Carry out the operations in FILE, or on standard input, one JSON object a line, in
order and in one call to the node. At most 1000. One result a line is printed.

  {"op":"put","key":"a","data":{"n":1},"ttl":"1h"}
  {"op":"get","key":"a"}
  {"op":"delete","key":"b","if_match":"0197…"}

An operation may fail alone, which makes the exit code 1; with --atomic all are
carried out or none is.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	r := remoteFlags(cmd)
	cmd.Flags().BoolVar(&atomic, "atomic", false, "all or nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in, name := cmd.InOrStdin(), "standard input"
		if len(args) > 0 && args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			in, name = f, args[0]
		}
		ops, err := readOps(name, in)
		if err != nil {
			return err
		}
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		return runBatch(cmd.Context(), c, ops, atomic, r, cmd.OutOrStdout())
	}
	return cmd
}

func runBatch(ctx context.Context, c *client.Client, ops []client.Op, atomic bool, r *remote, out io.Writer) error {
	if len(ops) == 0 {
		return nil
	}
	results, err := c.Batch(ctx, ops, atomic)
	// An atomic batch that failed tells about each operation in its problem.
	if p := (*client.Problem)(nil); errors.As(err, &p) && len(p.Results) == len(ops) {
		results = p.Results
	}
	failed := 0
	for i, result := range results {
		if result.Status >= 400 {
			failed++
		}
		if printErr := printResult(out, r, ops[i], result); printErr != nil {
			return printErr
		}
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %s failed", failed, count(len(ops), "operation"))
	}
	return err
}

func printResult(out io.Writer, r *remote, op client.Op, result client.BatchResult) error {
	if r.json() {
		return printJSON(out, result)
	}
	what := result.UUID
	switch {
	case result.Status >= 400:
		what = result.Detail
	case op.Op == "get":
		what = string(result.Data)
	}
	_, err := fmt.Fprintf(out, "%d\t%s\t%s\t%s\n", result.Status, op.Op, op.Key, what)
	return err
}

func readOps(name string, in io.Reader) ([]client.Op, error) {
	var ops []client.Op
	l := newLines(name, in)
	for {
		line, err := l.next()
		if err == io.EOF {
			return ops, nil
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		op, err := parseOp(line)
		if err != nil {
			return nil, &lineError{l.number, err}
		}
		if ops = append(ops, op); len(ops) > client.MaxBatchOps {
			return nil, fmt.Errorf("%s: more than %d operations; split it, or load values with `kvs import`", name, client.MaxBatchOps)
		}
	}
}

func parseOp(line []byte) (client.Op, error) {
	var w struct {
		Op          string          `json:"op"`
		Key         string          `json:"key"`
		Data        json.RawMessage `json:"data"`
		TTL         string          `json:"ttl"`
		ContentType string          `json:"content_type"`
		IfMatch     string          `json:"if_match"`
	}
	if err := decodeLine(line, &w); err != nil {
		return client.Op{}, err
	}
	op := client.Op{Op: w.Op, Key: w.Key, Data: w.Data, ContentType: w.ContentType, IfMatch: w.IfMatch}
	if w.TTL != "" {
		var err error
		if op.TTL, err = duration.Parse(w.TTL); err != nil {
			return op, err
		}
	}
	return op, nil
}
