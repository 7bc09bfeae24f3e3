package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kvs/server"
	"kvs/types"
)

func newConflict() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "conflict DIR1 DIR2",
		Short: "Make two data directories that disagree on a key at the same timestamp",
		Long: `Make two new data directories, without a node running: each belongs to a node of
its own, both hold the key with different values, written at the very same
timestamp, and the node of DIR1 joined an hour before that of DIR2.

Start a node on each of them (data_dir) that know each other (seed_nodes): both
will hold the value of DIR1, since of equal timestamps the older node's version
wins. The other value is kept and listed by ` + "`kvs conflicts`.",
		Args: args(cobra.ExactArgs(2)),
	}
	cmd.Flags().StringVar(&key, "key", "conflict", "the key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		k, err := types.ParseKey(key)
		if err != nil {
			return usageError{fmt.Errorf("--key: %w", err)}
		}
		if k.Reserved() {
			return usagef("--key: names that begin with an underscore belong to the store")
		}
		return makeConflict(cmd.Context(), cmd.OutOrStdout(), [2]string{args[0], args[1]}, k)
	}
	return cmd
}

func makeConflict(ctx context.Context, out io.Writer, dirs [2]string, key types.Key) error {
	if err := checkNew(dirs); err != nil {
		return err
	}
	// Some seconds ago, so that a node which is started at once need not wait for
	// its clock to pass what it wrote last.
	written := time.Now().Add(-10 * time.Second).Truncate(time.Millisecond)
	var records [2]types.Record
	for i, dir := range dirs {
		var err error
		records[i], err = server.OfflineWrite{
			Dir:     dir,
			Joined:  written.Add(time.Duration(i-2) * time.Hour),
			Written: written,
			Key:     key,
			Value:   fmt.Appendf(nil, `"written in directory %d"`, i+1),
		}.Do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	a, b := records[0], records[1]
	if a.Timestamp != b.Timestamp || a.OriginJoined >= b.OriginJoined {
		return fmt.Errorf("the two writes have the timestamps %d and %d, which should be equal, of nodes that joined at %d and %d",
			a.Timestamp, b.Timestamp, a.OriginJoined, b.OriginJoined)
	}
	for i, rec := range records {
		if _, err := fmt.Fprintf(out, "%s: key %s = %s, timestamp %d, version %s, node %s joined %s\n", dirs[i], key, rec.Value,
			rec.Timestamp.Millis(), rec.UUID, rec.Origin, when(rec.OriginJoined)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "Two nodes started on them will agree on %s\n", a.Value)
	return err
}

// checkNew refuses directories that hold something: nothing is ever overwritten.
func checkNew(dirs [2]string) error {
	var absolute [2]string
	for i, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(entries) > 0 {
			return fmt.Errorf("%s is not empty; name a new directory", dir)
		}
		if absolute[i], err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	if absolute[0] == absolute[1] {
		return usagef("DIR1 and DIR2 are the same directory")
	}
	return nil
}
