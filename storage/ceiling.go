package storage

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"kvs/utils/atomicfile"
)

// ceiling is a bound that no timestamp and no sequence number in use exceeds,
// in a small fsynced file of its own. It makes both safe against a log that
// lost its end: whatever Badger remembers, this node goes on above the ceiling.
//
// Payload: timestamp 8 | sequence 8, big-endian.
type ceiling struct {
	slots *atomicfile.Slots
	time  atomic.Uint64 // both are written by the committer only
	seq   atomic.Uint64
}

const (
	// ceilingAhead is how far the file runs ahead of the clock, so that it is
	// written twice a second under load.
	ceilingAhead = 500 * time.Millisecond
	// seqAhead is how many commits the same write covers; a commit with fsync
	// takes far longer than half a microsecond.
	seqAhead = 1 << 20
)

// openCeiling reads the file; existed is false for a new one.
func openCeiling(path string) (c *ceiling, existed bool, err error) {
	slots, err := atomicfile.OpenSlots(path)
	if err != nil {
		return nil, false, err
	}
	c = &ceiling{slots: slots}
	payload, existed := slots.Load()
	if existed {
		if len(payload) != 16 {
			slots.Close()
			return nil, false, fmt.Errorf("%s: %d bytes where 16 are expected", path, len(payload))
		}
		c.time.Store(binary.BigEndian.Uint64(payload))
		c.seq.Store(binary.BigEndian.Uint64(payload[8:]))
	}
	return c, existed, nil
}

// cover makes the ceiling lie at or above a timestamp and a sequence number,
// durably.
func (c *ceiling) cover(ts, seq uint64) error {
	if ts <= c.time.Load() && seq <= c.seq.Load() {
		return nil
	}
	ts += uint64(ceilingAhead.Milliseconds()) << 16
	seq += seqAhead
	payload := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, ts), seq)
	if err := c.slots.Store(payload); err != nil {
		return err
	}
	c.time.Store(ts)
	c.seq.Store(seq)
	return nil
}
