package tamperlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"kvs/storage"
)

// pieceBlocks is how many blocks are read from one snapshot, which keeps old
// tables alive. Since blocks are only ever added at the end, the pieces fit.
const pieceBlocks = 4096

var (
	errStop  = errors.New("stop")  // ends a walk without an error
	errPiece = errors.New("piece") // a piece is full
)

// walk calls fn with the blocks whose keys are at or after from, in order. Both
// slices are fn's until it returns.
func walk(ctx context.Context, store *storage.Store, from []byte, fn func(key, value []byte) error) error {
	for {
		left := pieceBlocks
		err := store.HookWalk(storage.SpaceLog, from, func(key, value []byte) error {
			if len(key) == 0 || key[0] != blockPrefix {
				return errStop
			}
			if left == 0 {
				return errPiece
			}
			left--
			from = append(append(from[:0], key...), 0) // just behind it
			return fn(key, value)
		})
		switch {
		case errors.Is(err, errStop):
			return nil
		case !errors.Is(err, errPiece):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// numberOf reads a block's key.
func numberOf(key []byte) (uint64, error) {
	if len(key) != 9 {
		return 0, fmt.Errorf("%x is not the key of a block", key)
	}
	return beNumber(key[1:]), nil
}

func beNumber(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// blockUnder decodes the block that was found under the number n.
func blockUnder(n uint64, value []byte) (Block, error) {
	b, err := DecodeBlock(value)
	if err != nil {
		return Block{}, fmt.Errorf("block %d is damaged: %w", n, err)
	}
	if b.First != n {
		return Block{}, fmt.Errorf("under the number of block %d there is block %d", n, b.First)
	}
	return b, nil
}
