package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"kvs/config"
	"kvs/storage"
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
	var sides [2]side
	for i, dir := range dirs {
		sides[i] = side{
			dir:     dir,
			joined:  written.Add(time.Duration(i-2) * time.Hour),
			written: written,
			value:   fmt.Sprintf(`"written in directory %d"`, i+1),
		}
		if err := sides[i].make(ctx, key); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	a, b := sides[0].record, sides[1].record
	if a.Timestamp != b.Timestamp || a.OriginJoined >= b.OriginJoined {
		return fmt.Errorf("the two writes have the timestamps %d and %d, which should be equal, of nodes that joined at %d and %d",
			a.Timestamp, b.Timestamp, a.OriginJoined, b.OriginJoined)
	}
	for _, s := range sides {
		if _, err := fmt.Fprintf(out, "%s: key %s = %s, timestamp %d, version %s, node %s joined %s\n", s.dir, key, s.record.Value,
			s.record.Timestamp.Millis(), s.record.UUID, s.record.Origin, when(s.record.OriginJoined)); err != nil {
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

// side is one of the two directories.
type side struct {
	dir             string
	joined, written time.Time
	value           string
	record          types.Record // what was stored
}

// make opens the store with a clock that stands still: first when the node
// joined, which the new directory's identity records, then when it wrote.
func (s *side) make(ctx context.Context, key types.Key) (err error) {
	defaults := config.Default()
	var now atomic.Int64 // Unix milliseconds; the store reads it in several goroutines
	now.Store(s.joined.UnixMilli())
	store, err := storage.Open(storage.Options{
		Dir:              s.dir,
		SyncWrites:       true,
		Compression:      defaults.CompressionEnabled,
		CompressionLevel: defaults.CompressionLevel,
		RevisionLimit:    defaults.RevisionLimit,
		DefaultMeta:      types.Meta{Owner: "root", Group: "root", Mode: defaults.DefaultMode},
		Wall:             func() time.Time { return time.UnixMilli(now.Load()) },
		Log:              slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	now.Store(s.written.UnixMilli())
	results, err := store.Write(ctx, []storage.Op{{Kind: storage.OpPut, Ref: types.DataRef(key), Value: []byte(s.value)}}, false)
	if err != nil {
		return err
	}
	s.record = results[0].Record
	return results[0].Err
}
