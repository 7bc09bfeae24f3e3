package tamperlog

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"sync"
	"time"

	"kvs/storage"
	"kvs/types"
)

// Options configure a Log.
type Options struct {
	Dir string           // the data directory, for the signing key
	Now func() time.Time // nil = time.Now
	Log *slog.Logger     // nil = slog.Default
}

// Log is the tamper log of this node: a storage.Hook, and what is done with it
// beside commits. Its methods are safe for concurrent use.
//
// It is handed to storage.Open, and Start is called before the first write. Run
// is for the refused attempts of a node without writes.
type Log struct {
	opts Options
	log  *slog.Logger
	wake chan struct{} // capacity 1: something waits for a commit

	mu        sync.Mutex // guards what follows; held by the committer for moments only
	store     *storage.Store
	node      types.NodeID
	key       ed25519.PrivateKey
	early     bool // a change was made before Start
	durable   head // the newest block that is committed
	confirmed head // the newest that was handed out as a checkpoint and confirmed
	refused   refusals
	stats     Stats

	// What follows is the committer's.
	staged  head // durable, once the commit under way is
	encoder encoder
	names   map[types.NodeID]string // "node:" and the UUID
}

// head is the end of the chain.
type head struct {
	n     uint64 // number of the last entry; 0: there is none
	count uint64 // entries of the last block
	hash  Hash
	seq   uint64 // of the last block
	time  int64  // of the last block
}

// Stats are counters since the start.
type Stats struct {
	Last       uint64 // number of the last entry, since ever
	Entries    uint64 // committed
	Refused    uint64 // attempts that Refused was told of
	Suppressed uint64 // those of them that are only counted in the log
}

// New gives a log that is not started: it keeps what Refused tells it, and
// nothing else.
func New(o Options) *Log {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Log{opts: o, log: o.Log, wake: make(chan struct{}, 1), names: make(map[types.NodeID]string)}
}

// Stats reads the counters.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Keyspace implements storage.Hook.
func (l *Log) Keyspace() byte { return storage.SpaceLog }

// Stage adds what waits, and the changes.
func (l *Log) Stage(tx *storage.HookTx, changes []storage.Staged) { l.stage(tx, changes) }

// transaction is what stage needs of a storage.HookTx.
type transaction interface {
	Seq() uint64
	Now() int64
	Set(key, value []byte)
}

func (l *Log) stage(tx transaction, changes []storage.Staged) {
	notes, from, ok := l.takeNotes(len(changes))
	if !ok {
		return
	}
	l.staged = from
	// The store has written the values of the commit before this one.
	l.encoder.reset()
	for i := range notes {
		l.append(tx, &notes[i])
	}
	for i := range changes {
		e := l.entryOf(&changes[i], tx.Now())
		l.append(tx, &e)
	}
	l.endBlock(tx)
}

// append adds an entry to the commit under way.
func (l *Log) append(tx transaction, e *Entry) {
	if l.encoder.full(e) {
		l.endBlock(tx)
	}
	if l.encoder.count == 0 {
		l.encoder.begin(&header{first: l.staged.n + 1, previous: l.staged.count, seq: tx.Seq(), time: tx.Now(), prev: l.staged.hash})
	}
	l.encoder.add(e)
}

func (l *Log) endBlock(tx transaction) {
	if l.encoder.count == 0 {
		return
	}
	block, count, hash := l.encoder.end()
	tx.Set(blockKey(l.staged.n+1), block)
	l.staged = head{n: l.staged.n + count, count: count, hash: hash, seq: tx.Seq(), time: tx.Now()}
}

// takeNotes gives what is to be written before the changes, and where the chain
// ends. ok is false if the log is not started.
func (l *Log) takeNotes(changes int) (notes []Entry, from head, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil {
		if !l.early && changes > 0 {
			l.early = true
			l.log.Error("a change was made before the tamper log was started: it is not in the log")
		}
		return nil, head{}, false
	}
	return l.refused.take(l.opts.Now), l.durable, true
}

// Committed makes what was staged the end of the chain.
func (l *Log) Committed(uint64, []storage.Staged) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil || l.staged.n == l.durable.n {
		return
	}
	l.stats.Entries += l.staged.n - l.durable.n
	l.stats.Last = l.staged.n
	l.durable = l.staged
	l.refused.committed()
}

// entryOf describes a change.
func (l *Log) entryOf(s *storage.Staged, now int64) Entry {
	e := Entry{Action: ActionPut, NS: s.New.NS, Key: string(s.New.Key), After: s.New.UUID}
	if s.Old != nil {
		e.Before = s.Old.UUID
	}
	if s.By != nil {
		e.By = *s.By
	} else {
		e.By.Subject = l.nodeName(s.New.Origin)
	}
	switch {
	case s.Merged:
		e.Action = ActionMerge
		if s.New.Tombstone() {
			e.Detail = "deleted"
		}
	case s.New.Tombstone():
		e.Action = ActionDelete
	case metadataOnly(s, now):
		e.Action = ActionMetadata
	}
	return e
}

// metadataOnly reports whether a live value was written again with other
// metadata.
func metadataOnly(s *storage.Staged, now int64) bool {
	o, n := s.Old, &s.New
	return o != nil && o.Live(now) && o.Flags == n.Flags && (o.Meta != n.Meta || o.ExpiresAt != n.ExpiresAt) &&
		bytes.Equal(o.Value, n.Value)
}

// maxNames bounds the names of nodes that are kept.
const maxNames = 1024

func (l *Log) nodeName(id types.NodeID) string {
	name, ok := l.names[id]
	if !ok {
		if len(l.names) >= maxNames {
			clear(l.names)
		}
		name = "node:" + id.String()
		l.names[id] = name
	}
	return name
}

// blockPrefix begins the keys of blocks.
const blockPrefix = 'e'

func blockKey(first uint64) []byte {
	return appendNumber(append(make([]byte, 0, 9), blockPrefix), first)
}
