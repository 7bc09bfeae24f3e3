package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"kvs/types"
)

// What replication keeps in the store, each entry beginning with a version
// byte; integers are big-endian:
//
//	replication/cursor/UUID  1 | cursor 8 | window 8 | namespace 1 | key
//	replication/marks/UUID   1 | S_p 8 | H_p 8 | completed at 8
//	replication/bootstrap    1 | started 8 | band 1 | namespace 1 | key
//
// An entry that cannot be read is reported and counts as absent: each of the
// three only saves work that can be done again.
const (
	metaVersion    = 1
	metaCursor     = "replication/cursor/"
	metaMarks      = "replication/marks/"
	metaBootstrap  = "replication/bootstrap"
	persistEvery   = time.Second
	persistTimeout = 10 * time.Second
)

// position is how far pushing to a peer is. All that this node originated in
// commits up to Cursor has been acknowledged. Where the peer is behind the ring,
// Window is the upper end of the scan (Cursor, Window] under way, and After how
// far in it the peer has acknowledged.
type position struct {
	Cursor uint64
	Window uint64 // 0: following the ring
	After  types.Ref
}

// marks are what the last completed comparison with a peer established: up to
// this node's commit Seq, and for all that either clock had read Clock (Unix ms)
// for, both hold the same. They are kept together or not at all.
type marks struct {
	Seq   uint64 // S_p, this node's sequence at the comparison's start
	Clock int64  // H_p, the smaller of both sides' clocks at its start, Unix ms
	At    int64  // when it was completed, Unix ms
}

// progress is how far a bootstrap is.
type progress struct {
	Started int64 // Unix ms; the bands are ages before this
	Band    int
	After   types.Ref
}

var errMeta = errors.New("unreadable entry")

func (p position) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{metaVersion}, p.Cursor)
	b = binary.BigEndian.AppendUint64(b, p.Window)
	return append(append(b, byte(p.After.NS)), p.After.Key...)
}

func decodePosition(b []byte) (position, error) {
	if len(b) < 18 || len(b) > 18+types.MaxInternalKeyLen || b[0] != metaVersion {
		return position{}, errMeta
	}
	p := position{
		Cursor: binary.BigEndian.Uint64(b[1:]),
		Window: binary.BigEndian.Uint64(b[9:]),
		After:  types.Ref{NS: types.Namespace(b[17]), Key: types.Key(b[18:])},
	}
	if p.Window != 0 && p.Window < p.Cursor {
		return position{}, errMeta
	}
	return p, nil
}

func (m marks) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{metaVersion}, m.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Clock))
	return binary.BigEndian.AppendUint64(b, uint64(m.At))
}

func decodeMarks(b []byte) (marks, error) {
	if len(b) != 25 || b[0] != metaVersion {
		return marks{}, errMeta
	}
	return marks{
		Seq:   binary.BigEndian.Uint64(b[1:]),
		Clock: int64(binary.BigEndian.Uint64(b[9:])),
		At:    int64(binary.BigEndian.Uint64(b[17:])),
	}, nil
}

func (p progress) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{metaVersion}, uint64(p.Started))
	return append(append(b, byte(p.Band), byte(p.After.NS)), p.After.Key...)
}

func decodeProgress(b []byte) (progress, error) {
	if len(b) < 11 || len(b) > 11+types.MaxInternalKeyLen || b[0] != metaVersion {
		return progress{}, errMeta
	}
	return progress{
		Started: int64(binary.BigEndian.Uint64(b[1:])),
		Band:    int(b[9]),
		After:   types.Ref{NS: types.Namespace(b[10]), Key: types.Key(b[11:])},
	}, nil
}

// read gives a stored entry, or false where there is none that can be used.
func read[T any](r *Replicator, name string, decode func([]byte) (T, error)) (T, bool) {
	var none T
	b, err := r.store.GetMeta(name)
	if err == nil && len(b) == 0 {
		return none, false
	}
	v := none
	if err == nil {
		v, err = decode(b)
	}
	if err != nil {
		r.log.Warn("kept state of replication cannot be read, and is built anew", "entry", name, "error", err)
		return none, false
	}
	return v, true
}

// load gives a peer what is kept about it. A peer seen for the first time is
// followed from here on: what is older, a comparison or its own bootstrap brings
// it, and nobody waits for an acknowledgement of that.
func (r *Replicator) load(p *peer) {
	var known bool
	if p.pos, known = read(r, metaCursor+p.id.String(), decodePosition); !known {
		p.pos, p.dirty = position{Cursor: r.store.Seq()}, true
	}
	p.marks, _ = read(r, metaMarks+p.id.String(), decodeMarks)
}

// setPosition notes how far pushing is; the persist loop stores it.
func (p *peer) setPosition(pos position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pos, p.dirty = pos, true
}

func (r *Replicator) persistLoop(ctx context.Context) {
	tick := time.NewTicker(persistEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.persist(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// persist stores the cursors that moved, all in one write.
func (r *Replicator) persist(ctx context.Context) {
	values := map[string][]byte{}
	stored := map[*peer]position{}
	for _, p := range r.snapshot() {
		p.mu.Lock()
		if p.dirty {
			stored[p] = p.pos
			values[metaCursor+p.id.String()] = p.pos.encode()
			p.dirty = false
		}
		p.mu.Unlock()
	}
	if len(values) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, persistTimeout)
	defer cancel()
	if err := r.store.PutMeta(ctx, values); err != nil {
		for p := range stored {
			p.mu.Lock()
			p.dirty = true
			p.mu.Unlock()
		}
		if !errors.Is(err, context.Canceled) && !r.persistFails {
			r.persistFails = true // said once
			r.log.Warn("the cursors of replication were not stored; after a crash more is sent again", "error", err)
		}
	} else {
		r.persistFails = false
	}
}

// keepMarks stores what a completed comparison established.
func (r *Replicator) keepMarks(ctx context.Context, p *peer, m marks) error {
	if err := r.store.PutMeta(ctx, map[string][]byte{metaMarks + p.id.String(): m.encode()}); err != nil {
		return fmt.Errorf("store the marks of %s: %w", p.id, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marks = m
	return nil
}
