package replication

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"kvs/cluster/placement"
	"kvs/cluster/rpc"
	"kvs/storage/feed"
	"kvs/storage/merkle"
	"kvs/types"
)

// Store is what replication needs of the storage engine. Records given out are
// the receiver's to keep.
type Store interface {
	Now() time.Time // the node's wall clock
	Horizon() int64 // E, Unix ms

	// The node's change sequence. A commit's changes are in the tree and in Recent
	// before Seq shows it.
	Seq() uint64
	Committed() <-chan struct{}
	Recent(after uint64, maxBytes int) (commits []feed.Commit, ok bool)
	ChangedBetween(ctx context.Context, from, to uint64, after types.Ref, fn func(*types.Record) bool) error

	// All records, tombstones too.
	Walk(ctx context.Context, after types.Ref, fn func(*types.Record) bool) error
	Lookup(ref types.Ref) (types.Record, error)
	Tree() *merkle.Tree
	// Of the records that can be read: one that cannot is missing here, so that
	// comparisons fetch it.
	Bucket(bucket uint32) []merkle.Entry // by ascending hash
	ByHash(hash uint64) []types.Record

	Merge(ctx context.Context, units [][]types.Record) ([]feed.Refusal, error)
	Repair(ctx context.Context, rec types.Record) error

	// Small values of this node. They do not move the sequence: the storing of
	// cursors would otherwise call for the next.
	GetMeta(name string) ([]byte, error)
	PutMeta(ctx context.Context, values map[string][]byte) error
}

// Caller posts a body to a path of a node and gives the body of the answer;
// *rpc.Client is one.
type Caller interface {
	Call(ctx context.Context, addr, path string, body []byte) ([]byte, error)
}

// Peer is another node of the roster.
type Peer struct {
	UUID    types.NodeID
	NodeID  string
	Address string // host:port
	Alive   bool   // membership reaches it
	Mode    types.Mode
}

// Options of a Replicator. Self, Store, Caller, Peers and PeersChanged are
// required.
type Options struct {
	Self   types.NodeID
	Store  Store
	Caller Caller

	Peers        func() []Peer          // the roster but for this node
	PeersChanged func() <-chan struct{} // closed when Peers gives something else than before this call

	// Joining is closed once the first attempt to reach the seeds has ended,
	// however; nil for a node without seeds. Until then an empty node is syncing,
	// so that nobody reads from it that there is nothing.
	Joining <-chan struct{}
	// SetSyncing is told when the node begins and ends to be filled. It must not
	// block.
	SetSyncing func(bool)
	// Admit refuses the calls of a node, for one that was removed; nil: all may
	// call. The error reaches the peer.
	Admit func(types.NodeID) error

	SyncInterval    time.Duration // each member is compared with at least this often; 0: 5 m
	CatchupInterval time.Duration // ... and this often while known to differ; 0: 2 m
	ThrottleDelay   time.Duration // pause between the rounds of one comparison; 0: none
	FetchDelay      time.Duration // pause between fetches of records; 0: none
	RecheckDelay    time.Duration // how long what differs may still be in flight; 0: 1 s
	CallTimeout     time.Duration // of one call; 0: 30 s
	BootstrapMaxAge time.Duration // where the third age band ends; 0: 30 days

	MaxBody   int64 // bytes of one body; 0: rpc.DefaultMaxBody
	Placement placement.Policy
	Log       *slog.Logger // nil: discarded
}

func (o *Options) check() error {
	if o.Self.IsZero() || o.Store == nil || o.Caller == nil || o.Peers == nil || o.PeersChanged == nil {
		return errors.New("replication: Self, Store, Caller, Peers and PeersChanged are required")
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&o.SyncInterval, 5 * time.Minute},
		{&o.CatchupInterval, 2 * time.Minute},
		{&o.RecheckDelay, time.Second},
		{&o.CallTimeout, 30 * time.Second},
		{&o.BootstrapMaxAge, 30 * 24 * time.Hour},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	if o.MaxBody <= 0 {
		o.MaxBody = rpc.DefaultMaxBody
	}
	if o.SetSyncing == nil {
		o.SetSyncing = func(bool) {}
	}
	if o.Admit == nil {
		o.Admit = func(types.NodeID) error { return nil }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
