package replication

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"kvs/cluster/replication/wire"
	"kvs/storage/merkle"
	"kvs/types"
	"kvs/utils/backoff"
)

const (
	pathRoot     = "/sync/merkle/compare"
	pathNodes    = "/sync/merkle/nodes"
	pathBuckets  = "/sync/merkle/buckets"
	pathExchange = "/sync/merkle/exchange"
)

// Bounds of one round. What is left when one is reached is the next round's.
const (
	roundDiffs = 32 << 10
	roundBytes = 64 << 20
	roundTime  = 30 * time.Second

	exchangeItems = 2048  // of one exchange
	listEntries   = 16384 // aimed at for one listing
	listBuckets   = 512   // of one listing
)

// comparison compares this node with one peer. It may take several rounds, all
// under the marks of the first: what a later round finds equal was so in full
// at some time after both snapshots.
type comparison struct {
	r    *Replicator
	to   Peer
	salt uint64
	most int // differences that one round takes on

	started bool
	seq     uint64 // S: own sequence before anything was read
	clock   int64  // H: the smaller of both clocks then, Unix ms

	from    uint64 // the key hash from which the next round goes on
	refused int    // records that one side would not store
}

// outcome is what one round came to.
type outcome struct {
	completed bool // every difference found since the start is settled
	cut       bool // a bound was reached; from says where to go on
	syncing   bool // the peer is being filled, nothing was compared
	moved     int  // records exchanged, both ways
	gained    int  // those of them that came here
}

// round goes once from the comparison's resume point to the end, or to a bound.
func (c *comparison) round(ctx context.Context) (out outcome, err error) {
	r := c.r
	start := time.Now()
	r.syncRounds.Add(1)
	if !c.started {
		c.seq, c.clock = r.store.Seq(), r.store.Now().UnixMilli()
	}
	root, err := c.root(ctx)
	if err != nil {
		return out, err
	}
	if !c.started {
		c.started, c.clock = true, min(c.clock, root.Clock)
	}
	switch {
	case root.Syncing:
		out.syncing = true
		return out, nil
	case root.Equal:
		// Whatever was unsettled before is not so now.
		out.completed = true
		return out, nil
	}
	buckets, err := c.descend(ctx, root.Children)
	if err != nil {
		return out, err
	}
	diffs, next, err := c.list(ctx, buckets, start)
	if err != nil {
		return out, err
	}
	if len(diffs) > 0 {
		// Pushes are in flight all the time; most of what differs is about to
		// arrive and must not be sent twice.
		if !backoff.Sleep(ctx, r.o.RecheckDelay) {
			return out, ctx.Err()
		}
		at, err := c.settle(ctx, diffs, start, &out)
		r.syncMoved.Add(uint64(out.moved))
		if err != nil {
			return out, err
		}
		if at != 0 {
			next = at // no later than where listing stopped
		}
	}
	c.from, out.cut = next, next != 0
	out.completed = !out.cut && c.refused == 0
	return out, nil
}

// call is one step; its bytes are counted.
func (c *comparison) call(ctx context.Context, path string, body []byte) ([]byte, error) {
	answer, err := c.r.call(ctx, c.to, path, body)
	c.r.syncBytes.Add(uint64(len(body) + len(answer)))
	return answer, err
}

func (c *comparison) root(ctx context.Context) (wire.RootAnswer, error) {
	r := c.r
	digest, count := r.store.Tree().Root()
	req := wire.Root{Header: r.header(), Salt: c.salt, Digest: digest, Count: count}
	raw, err := c.call(ctx, pathRoot, req.Append(nil))
	if err != nil {
		return wire.RootAnswer{}, err
	}
	answer, err := wire.DecodeRootAnswer(raw)
	if err := r.answered(c.to, answer.Header, err); err != nil {
		return wire.RootAnswer{}, err
	}
	if answer.Equal {
		answer.Digest = digest
	}
	if p := r.peer(c.to.UUID); p != nil {
		p.sawRoot(answer.Digest)
	}
	return answer, nil
}

// descend gives the differing buckets from the resume point on, in order.
func (c *comparison) descend(ctx context.Context, theirs wire.Children) ([]uint32, error) {
	r := c.r
	parents, children := []uint32{0}, []wire.Children{theirs}
	for level := 1; ; level++ {
		var differing []uint32
		for i, parent := range parents {
			mine := wire.SaltedChildren(r.store.Tree(), c.salt, level-1, parent)
			for j := range mine {
				node := parent*merkle.Fanout + uint32(j)
				if mine[j] != children[i][j] && lastHash(level, node) >= c.from {
					differing = append(differing, node)
				}
			}
		}
		if level == merkle.Depth || len(differing) == 0 {
			return differing, nil
		}
		req := wire.Nodes{Header: r.header(), Salt: c.salt, Level: level, Indexes: differing}
		raw, err := c.call(ctx, pathNodes, req.Append(nil))
		if err != nil {
			return nil, err
		}
		answer, err := wire.DecodeNodesAnswer(raw, len(differing))
		if err := r.answered(c.to, answer.Header, err); err != nil {
			return nil, err
		}
		parents, children = differing, answer.Children
	}
}

// firstHash and lastHash bound the key hashes below a node.
func firstHash(level int, node uint32) uint64 { return uint64(node) << (64 - 4*level) }
func lastHash(level int, node uint32) uint64 {
	return firstHash(level, node) | (^uint64(0) >> (4 * level))
}

// diff is a key hash under which the two sides were seen to hold different
// records.
type diff struct {
	hash   uint64
	theirs uint32 // the peer's salted digest, where it has exactly one record
	one    bool
}

// list compares the records of the buckets. at is the key hash where a bound
// stopped it, 0 if it came to the end.
func (c *comparison) list(ctx context.Context, buckets []uint32, start time.Time) (diffs []diff, at uint64, err error) {
	r := c.r
	_, count := r.store.Tree().Root()
	chunk := int(max(1, min(listBuckets, listEntries*merkle.Leaves/(count+1))))
	from := c.from
	for steps := 0; len(buckets) > 0; steps++ {
		if len(diffs) >= c.most || steps > 0 && time.Since(start) > roundTime {
			return diffs, max(from, firstHash(merkle.Depth, buckets[0])), nil
		}
		req := wire.Buckets{Header: r.header(), Salt: c.salt, From: from, Buckets: buckets[:min(chunk, len(buckets))]}
		raw, err := c.call(ctx, pathBuckets, req.Append(nil))
		if err != nil {
			return nil, 0, err
		}
		answer, err := wire.DecodeBucketsAnswer(raw, &req)
		if err := r.answered(c.to, answer.Header, err); err != nil {
			return nil, 0, err
		}
		end := answer.Next // the listing says nothing from here on; 0: it is complete
		var mine []wire.Entry
		for _, bucket := range req.Buckets {
			if end != 0 && firstHash(merkle.Depth, bucket) >= end {
				break
			}
			for _, e := range r.store.Bucket(bucket) {
				if e.Hash >= from && (end == 0 || e.Hash < end) {
					mine = append(mine, wire.Entry{Hash: e.Hash, Digest: wire.Salted(c.salt, e.Digest.Bytes())})
				}
			}
		}
		diffs = appendDiffs(diffs, mine, answer.Entries)
		if end == 0 {
			buckets = buckets[len(req.Buckets):]
			continue
		}
		from = end
		for len(buckets) > 0 && lastHash(merkle.Depth, buckets[0]) < from {
			buckets = buckets[1:]
		}
	}
	return diffs, 0, nil
}

// appendDiffs compares two listings, both in ascending order of hashes.
func appendDiffs(diffs []diff, mine, theirs []wire.Entry) []diff {
	for len(mine) > 0 || len(theirs) > 0 {
		var hash uint64
		switch {
		case len(theirs) == 0 || len(mine) > 0 && mine[0].Hash < theirs[0].Hash:
			hash = mine[0].Hash
		default:
			hash = theirs[0].Hash
		}
		a, b := leading(mine, hash), leading(theirs, hash)
		mine, theirs = mine[len(a):], theirs[len(b):]
		if !sameDigests(a, b) {
			d := diff{hash: hash, one: len(b) == 1}
			if d.one {
				d.theirs = b[0].Digest
			}
			diffs = append(diffs, d)
		}
	}
	return diffs
}

// leading gives the entries at the start that have this hash.
func leading(entries []wire.Entry, hash uint64) []wire.Entry {
	n := 0
	for n < len(entries) && entries[n].Hash == hash {
		n++
	}
	return entries[:n]
}

// sameDigests compares as sets: keys that share a hash have no common order.
func sameDigests(a, b []wire.Entry) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 1 {
		return a[0].Digest == b[0].Digest
	}
	var x, y []uint32
	for i := range a {
		x, y = append(x, a[i].Digest), append(y, b[i].Digest)
	}
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// settle exchanges what still differs. at is the key hash where a bound stopped
// it, 0 if all was settled.
func (c *comparison) settle(ctx context.Context, diffs []diff, start time.Time, out *outcome) (at uint64, err error) {
	r := c.r
	bytes := 0
	for len(diffs) > 0 {
		if bytes > roundBytes || bytes > 0 && time.Since(start) > roundTime {
			return diffs[0].hash, nil
		}
		h := r.header()
		var items []wire.Item
		n := 0 // diffs that items covers
		for ; n < len(diffs) && len(items) < exchangeItems; n++ {
			items = append(items, c.items(diffs[n])...)
		}
		diffs = diffs[n:]
		for len(items) > 0 {
			if bytes > 0 && !backoff.Sleep(ctx, r.o.FetchDelay) {
				return 0, ctx.Err()
			}
			handled, size, err := c.exchange(ctx, h, items, out)
			if err != nil {
				return 0, err
			}
			items, bytes = items[handled:], bytes+size
		}
	}
	return 0, nil
}

// items says what this node holds under a hash now, nothing if the peer was seen
// to hold the same.
func (c *comparison) items(d diff) []wire.Item {
	items := itemsOf(d.hash, c.r.store.ByHash(d.hash), c.salt)
	if d.one && len(items) == 1 && items[0].Timestamp != 0 && items[0].Digest == d.theirs {
		return nil
	}
	return items
}

// itemsOf gives the items of a hash: one for each record, or one that says that
// there is none.
func itemsOf(hash uint64, records []types.Record, salt uint64) []wire.Item {
	if len(records) == 0 {
		return []wire.Item{{Hash: hash}}
	}
	items := make([]wire.Item, 0, len(records))
	for i := range records {
		digest := merkle.RecordDigest(&records[i])
		items = append(items, wire.Item{Hash: hash, Timestamp: records[i].Timestamp, Digest: wire.Salted(salt, digest.Bytes())})
	}
	return items
}

// exchange settles the first items. size is about how many bytes of records
// were moved, at least 1.
func (c *comparison) exchange(ctx context.Context, h wire.Header, items []wire.Item, out *outcome) (handled, size int, err error) {
	r := c.r
	items = items[:groupEnd(items, wire.MaxExchange)]
	raw, err := c.call(ctx, pathExchange, (&wire.Exchange{Header: h, Salt: c.salt, Items: items}).Append(nil))
	if err != nil {
		return 0, 0, err
	}
	answer, err := wire.DecodeExchangeAnswer(raw, len(items))
	if err := r.answered(c.to, answer.Header, err); err != nil {
		return 0, 0, err
	}
	if groupEnd(items, answer.Handled) != answer.Handled {
		return 0, 0, fmt.Errorf("answer of %s: %w: items of one key hash are torn apart", c.to.NodeID, wire.ErrMalformed)
	}

	// What the peer has newer. Durable here before the round counts it.
	for i := range answer.Records {
		hash := merkle.KeyHash(answer.Records[i].Ref)
		if _, asked := slices.BinarySearchFunc(items, hash, func(it wire.Item, h uint64) int {
			switch {
			case it.Hash < h:
				return -1
			case it.Hash > h:
				return 1
			}
			return 0
		}); !asked {
			return 0, 0, fmt.Errorf("answer of %s: %w: record %s was not asked for", c.to.NodeID, wire.ErrMalformed, answer.Records[i].Ref)
		}
	}
	size = 1 + wire.Size(answer.Records)
	refused, err := r.apply(ctx, c.to, singles(answer.Records))
	if err != nil {
		return 0, 0, err
	}
	c.refused += refused
	out.moved += len(answer.Records) - refused
	out.gained += len(answer.Records) - refused

	// What the peer wants, read now: it may have changed since.
	var batch [][]types.Record
	pending := 0
	h = r.header()
	flush := func() error {
		refused, err := r.send(ctx, c.to, h, batch)
		if err != nil {
			return err
		}
		c.refused += refused
		out.moved += len(batch) - refused
		size += pending
		batch, pending, h = nil, 0, r.header()
		return nil
	}
	for _, i := range answer.Wants {
		for _, unit := range singles(r.store.ByHash(items[i].Hash)) {
			n := wire.Size(unit)
			if pending > 0 && pending+n > maxBatch {
				if err := flush(); err != nil {
					return 0, 0, err
				}
			}
			batch, pending = append(batch, unit), pending+n
		}
	}
	return answer.Handled, size, flush()
}

// groupEnd gives the greatest number of items, at most n if that is possible,
// that does not tear items of one hash apart.
func groupEnd(items []wire.Item, n int) int {
	if n >= len(items) {
		return len(items)
	}
	end := n
	for end > 0 && items[end-1].Hash == items[end].Hash {
		end--
	}
	if end > 0 {
		return end
	}
	for end = n; end < len(items) && items[end].Hash == items[end-1].Hash; end++ {
	}
	return end
}

// singles makes each record a unit of its own.
func singles(records []types.Record) [][]types.Record {
	units := make([][]types.Record, len(records))
	for i := range records {
		units[i] = records[i : i+1 : i+1]
	}
	return units
}

// newComparison begins a comparison with a peer.
func (r *Replicator) newComparison(to Peer) *comparison {
	return &comparison{r: r, to: to, salt: rand.Uint64(), most: roundDiffs}
}

// marks is what the completed comparison established.
func (c *comparison) marks() marks {
	return marks{Seq: c.seq, Clock: c.clock, At: c.r.store.Now().UnixMilli()}
}
