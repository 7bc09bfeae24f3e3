package tamperlog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"kvs/storage"
	"kvs/types"
)

// What is kept of one node. Hours are those of this node's clock: a node that
// lies about time cannot push out what it said before.
const (
	keepNewest = 256  // checkpoints of a line
	keepHourly = 8784 // older ones, one an hour: those of a year
	maxKeys    = 4    // public keys
	maxLines   = 4    // lines of one public key
)

const (
	hourMillis = 3_600_000

	// witnessPrefix begins the keys of witnessed checkpoints. The value is the
	// time of arrival, Unix ms (8), and the checkpoint.
	witnessPrefix = 'w'
	witnessKey    = 1 + 16 + 1 + 8
)

// lineID names a line of checkpoints. Numbers grow with time.
type lineID struct {
	node   types.NodeID
	number byte
}

func (id lineID) key(n uint64) []byte {
	b := append(make([]byte, 0, witnessKey), witnessPrefix)
	return appendNumber(append(append(b, id.node[:]...), id.number), n)
}

// line is what is kept of a run of checkpoints of one key.
type line struct {
	id    lineID
	key   PublicKey
	time  int64  // of the newest, as it says
	marks []mark // in order of n
}

type mark struct {
	n    uint64
	head Hash
	hour int64 // of arrival
}

func (l *line) append(c *Checkpoint, received int64) {
	l.marks = append(l.marks, mark{c.N, c.Head, received / hourMillis})
	l.time = c.Time
}

// add makes c the newest of the line and gives the numbers of those that are no
// longer kept.
func (l *line) add(c *Checkpoint, received int64) (drop []uint64) {
	l.append(c, received)
	i := len(l.marks) - 1 - keepNewest
	if i < 0 {
		return nil
	}
	if i > 0 && l.marks[i].hour == l.marks[i-1].hour {
		return append(drop, l.remove(i))
	}
	if i+1 > keepHourly {
		drop = append(drop, l.remove(1)) // the very first says most
	}
	return drop
}

func (l *line) remove(i int) uint64 {
	n := l.marks[i].n
	l.marks = slices.Delete(l.marks, i, i+1)
	return n
}

// clear empties the line and gives the numbers of what was in it.
func (l *line) clear() (drop []uint64) {
	for _, m := range l.marks {
		drop = append(drop, m.n)
	}
	l.marks = nil
	return drop
}

// find gives the mark of number n.
func (l *line) find(n uint64) (mark, bool) {
	i, ok := slices.BinarySearchFunc(l.marks, n, func(m mark, n uint64) int { return cmp.Compare(m.n, n) })
	if !ok {
		return mark{}, false
	}
	return l.marks[i], true
}

// verdict says what becomes of a checkpoint.
type verdict struct {
	known    bool   // nothing: it, or one after it, is kept
	line     *line  // where it belongs; nil: a new line
	anew     bool   // the line is emptied before
	conflict string // what it contradicts; empty: nothing
}

// place decides about c, whose signature holds, given the lines of its node. The
// error is ErrTooManyLines.
//
// A key's line goes on whatever comes under other keys: only who has the node's
// key can disturb what is kept under it.
func place(lines []*line, c *Checkpoint) (verdict, error) {
	var latest *line
	keys, same := make(map[PublicKey]bool), 0
	for _, l := range lines {
		keys[l.key] = true
		if l.key != c.PublicKey {
			continue
		}
		if m, ok := l.find(c.N); ok && m.head == c.Head {
			return verdict{known: true}, nil
		}
		latest = l
		same++
	}
	switch {
	case len(lines) == 0:
		return verdict{}, nil
	case latest == nil:
		v := verdict{conflict: fmt.Sprintf("it is signed with another key than the checkpoints before, %s", lines[0].key)}
		if len(keys) >= maxKeys {
			return v, fmt.Errorf("%w: it has shown %d public keys", ErrTooManyLines, len(keys))
		}
		return v, nil
	}
	newest := latest.marks[len(latest.marks)-1]
	if c.N > newest.n {
		return verdict{line: latest}, nil
	}
	v := verdict{conflict: fmt.Sprintf("it had %d entries, and now says that entry %d is its last", newest.n, c.N)}
	if m, ok := latest.find(c.N); ok {
		v.conflict = fmt.Sprintf("up to entry %d it had the hash %s, and now another one", c.N, m.head)
	} else if c.Time <= latest.time {
		return verdict{known: true}, nil // it was on its way for long
	}
	if same >= maxLines {
		v.line, v.anew = latest, true
	}
	return v, nil
}

func nextNumber(lines []*line) byte {
	if len(lines) == 0 {
		return 0
	}
	return lines[len(lines)-1].id.number + 1
}

// walkWitnessed calls fn with the witnessed checkpoints whose keys begin with
// prefix, in order of key, and damaged with what is none.
func walkWitnessed(ctx context.Context, store *storage.Store, prefix []byte,
	fn func(id lineID, received int64, c Checkpoint), damaged func(key []byte, err error)) error {
	err := store.HookWalk(storage.SpaceLog, prefix, func(key, value []byte) error {
		if !bytes.HasPrefix(key, prefix) {
			return errStop
		}
		id, received, c, err := decodeWitnessed(key, value)
		if err != nil {
			damaged(key, err)
			return ctx.Err()
		}
		fn(id, received, c)
		return ctx.Err()
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func decodeWitnessed(key, value []byte) (id lineID, received int64, c Checkpoint, err error) {
	if len(key) != witnessKey || len(value) != 8+CheckpointSize {
		return id, 0, c, &FormatError{0, "it has not the size of one"}
	}
	id.node, id.number = types.NodeID(key[1:17]), key[17]
	received = int64(beNumber(value))
	if c, err = DecodeCheckpoint(value[8:]); err == nil && (c.Node != id.node || c.N != beNumber(key[18:])) {
		err = errors.New("it is of another node or number than its key")
	}
	return id, received, c, err
}
