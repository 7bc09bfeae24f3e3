package tamperlog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"kvs/storage"
)

// VerifyOptions configure Verify.
type VerifyOptions struct {
	// Witnessed are checkpoints of this log that other nodes keep. They may come
	// from several nodes, and more than once.
	Witnessed []Checkpoint
	// PublicKey is the key of this node, if known: checkpoints under another one
	// are told apart.
	PublicKey PublicKey
	// Off says that the log is switched off: changes after its end are a gap then
	// and no problem.
	Off bool
	// Progress is called now and then with the number of the last entry read.
	Progress func(n uint64)
}

// progressEvery is how many blocks are read between two calls of Progress.
const progressEvery = 1000

// Verify reads the whole log and reports all that is wrong with it. The log may
// grow meanwhile. It needs memory for one block and for the checkpoints. The
// error is the store's or the context's; what is wrong with the log is no error.
func Verify(ctx context.Context, store *storage.Store, o VerifyOptions) (Report, error) {
	node := store.Identity().UUID
	// What is committed after this may be newer than the walk.
	seq := store.Seq()
	v := verifier{
		report: Report{Node: node},
		next:   1, known: true, head: head{hash: genesis(node, 1)},
	}
	v.checkpoints(o)
	err := walk(ctx, store, []byte{blockPrefix}, func(key, value []byte) error {
		v.entry(key, value)
		if v.report.Blocks%progressEvery == 0 && o.Progress != nil {
			o.Progress(v.next - 1)
		}
		return nil
	})
	if err != nil {
		return v.report, fmt.Errorf("read the tamper log after entry %d: %w", v.next-1, err)
	}
	v.finish()
	unlogged, err := changedIn(ctx, store, v.head.seq, seq)
	if err != nil {
		return v.report, err
	}
	switch {
	case unlogged == 0:
	case o.Off:
		v.report.gap(Gap{AfterSeq: v.head.seq, Seq: seq, Records: uint64(unlogged)})
	default:
		v.report.problem(KindUnlogged, v.next, v.next, fmt.Sprintf("%s records were changed after the last entry that can be read: "+
			"the end of the log was cut off, or they were changed while it was switched off", atLeast(unlogged)))
	}
	return v.report, nil
}

func atLeast(n int) string {
	if n >= maxUnlogged {
		return fmt.Sprintf("%d or more", n)
	}
	return fmt.Sprint(n)
}

// verifier is the state of a walk.
type verifier struct {
	report Report
	next   uint64 // number of the first entry that was not read yet
	head   head   // the last good block
	known  bool   // head is the one right before next
	// hole is where a stretch began that cannot be read; 0: there is none. It
	// ends where the next good block begins.
	hole     uint64
	holeKind Kind
	holeText string

	witnessed []Checkpoint // not held against the log yet, in order of n
	differ    struct {     // a run of them that do not agree
		first, last uint64
		count       int
	}
}

// checkpoints keeps what is fit to be held against the log. The rest is one
// problem of each sort: who makes checkpoints up must not fill the report.
func (v *verifier) checkpoints(o VerifyOptions) {
	var foreign, forged, otherKey []Checkpoint
	for _, c := range o.Witnessed {
		switch {
		case c.Node != v.report.Node:
			foreign = append(foreign, c)
		case !c.Verify():
			forged = append(forged, c)
		case o.PublicKey != (PublicKey{}) && c.PublicKey != o.PublicKey:
			otherKey = append(otherKey, c)
		default:
			v.witnessed = append(v.witnessed, c)
		}
	}
	v.useless(foreign, "are of another node")
	v.useless(forged, "have a signature that does not hold")
	v.useless(otherKey, fmt.Sprintf("are signed with another key than this node's, %s: either its key was replaced, or somebody else made them", o.PublicKey))
	slices.SortFunc(v.witnessed, func(a, b Checkpoint) int {
		return cmp.Or(cmp.Compare(a.N, b.N), slices.Compare(a.Head[:], b.Head[:]))
	})
	v.witnessed = slices.CompactFunc(v.witnessed, func(a, b Checkpoint) bool { return a.N == b.N && a.Head == b.Head })
}

func (v *verifier) useless(list []Checkpoint, why string) {
	if len(list) == 0 {
		return
	}
	first, last := list[0].N, list[0].N
	for _, c := range list {
		first, last = min(first, c.N), max(last, c.N)
	}
	v.report.problem(KindWitness, first, last, fmt.Sprintf("%d of the checkpoints given are not used: they %s; the first is of node %s with the key %s",
		len(list), why, list[0].Node, list[0].PublicKey))
}

// entry takes one entry of the keyspace.
func (v *verifier) entry(key, value []byte) {
	n, err := numberOf(key)
	if err != nil {
		v.report.problem(KindInserted, v.next, v.next, err.Error()+": somebody put it into the log")
		return
	}
	b, err := DecodeBlock(value)
	switch {
	case err != nil:
		v.broken(n, KindAltered, fmt.Sprintf("the block at entry %d was altered: %v", n, err))
	case b.First != n:
		v.broken(n, KindMoved, fmt.Sprintf("at entry %d there is the block of entry %d", n, b.First))
	case n < v.next:
		v.report.problem(KindInserted, n, b.Last(), fmt.Sprintf("a block that begins at entry %d was put into the log, whose entries go on to %d there", n, v.next-1))
	default:
		v.block(&b)
	}
}

// broken notes that what is under n tells nothing, not even how many entries
// there should be.
func (v *verifier) broken(n uint64, kind Kind, text string) {
	if n < v.next {
		v.report.problem(KindInserted, n, n, fmt.Sprintf("%s; the block before it goes on to entry %d, so it was put there", text, v.next-1))
		return
	}
	v.missing(n)
	v.hole, v.holeKind, v.holeText = n, kind, text
	v.next, v.known = n+1, false
}

// missing closes a hole that ends before n, or reports what is not there.
func (v *verifier) missing(n uint64) {
	switch {
	case v.hole != 0:
		v.report.problem(v.holeKind, v.hole, n-1, v.holeText)
		v.hole = 0
	case n > v.next:
		v.report.problem(KindMissing, v.next, n-1, fmt.Sprintf("the entries %d to %d are missing", v.next, n-1))
		v.known = false
	}
}

// block takes a block that is good in itself and under its own number.
func (v *verifier) block(b *Block) {
	begins := b.Previous == 0 && b.Prev == genesis(v.report.Node, b.First)
	if begins && v.hole == 0 && b.First-v.next <= maxEntries {
		v.next = b.First // a new chain leaves out numbers that the broken one may have used
	}
	v.missing(b.First)
	if begins && b.First > 1 {
		v.report.problem(KindNewChain, b.First, b.First, fmt.Sprintf("a new chain begins at entry %d: the operator had it begun because the log "+
			"was broken before it, or somebody made it look so. Nothing ties the entries before it to those after it", b.First))
		v.known = false
	}
	if v.known && (b.Prev != v.head.hash || b.Previous != v.head.count) {
		v.report.problem(KindUnlinked, b.First, b.Last(), v.unlinked(b))
	}
	if b.Seq < v.head.seq {
		v.report.problem(KindSequence, b.First, b.Last(), fmt.Sprintf("the block was made at change sequence %d of the store, and the one before it at %d", b.Seq, v.head.seq))
	}
	v.witness(b, begins)
	v.count(b)
	v.next, v.known = b.Last()+1, true
	v.head = head{n: b.Last(), count: uint64(len(b.Entries)), hash: b.Hash, seq: b.Seq, time: b.Time}
}

func (v *verifier) unlinked(b *Block) string {
	if b.First == 1 {
		return "the log does not begin as one of this node: it was put here from another node, or its first block was replaced"
	}
	return fmt.Sprintf("the block at entry %d does not follow from the one that ends with entry %d: one of the two was replaced", b.First, b.First-1)
}

// count looks into a block.
func (v *verifier) count(b *Block) {
	r := &v.report
	if r.Blocks == 0 {
		r.FirstTime = b.Time
	}
	r.Blocks++
	r.Entries += uint64(len(b.Entries))
	r.Last, r.Head, r.LastTime = b.Last(), b.Hash, b.Time
	for i := range b.Entries {
		switch e := &b.Entries[i]; e.Action {
		case ActionRefused:
			r.Refused += e.Count
		case ActionGap:
			r.Refused += e.Count
			r.Suppressed += e.Count
		case ActionOpened:
			if e.Count > 0 {
				r.gap(Gap{Entry: e.N, AfterSeq: v.head.seq, Seq: b.Seq, Time: b.Time, Records: e.Count})
			}
		}
	}
}

// witness holds the checkpoints up to the end of b against it. That of the end
// of the block before b is here only if that block could not be read: its hash
// then stands in b, unless b begins a chain.
func (v *verifier) witness(b *Block, begins bool) {
	for len(v.witnessed) > 0 && v.witnessed[0].N <= b.Last() {
		c := &v.witnessed[0]
		switch {
		case c.N < b.First-1, c.N == b.First-1 && begins:
			v.report.Unchecked++
		case c.N == b.Last() && c.Head == b.Hash, c.N == b.First-1 && c.Head == b.Prev:
			v.differs()
			v.report.Witnessed++
			v.report.WitnessedTo = c.N
		default:
			if v.differ.count++; v.differ.count == 1 {
				v.differ.first = c.N
			}
			v.differ.last = c.N
		}
		v.witnessed = v.witnessed[1:]
	}
}

// differs reports a run of checkpoints that do not agree with the log.
func (v *verifier) differs() {
	if d := v.differ; d.count > 0 {
		after := v.report.WitnessedTo
		v.report.problem(KindRewritten, min(after+1, d.first), d.last, fmt.Sprintf("%d checkpoints that other nodes witnessed between the entries %d and %d "+
			"have other hashes than the log: it was rewritten after entry %d, or this node showed two different logs", d.count, d.first, d.last, after))
	}
	v.differ.count = 0
}

// finish reports what only the end shows.
func (v *verifier) finish() {
	end := v.next - 1 // the last number that may have been used
	if v.hole != 0 {
		end = v.hole + maxEntries - 1
		v.missing(v.next)
	}
	v.differs()
	for len(v.witnessed) > 0 && v.witnessed[0].N <= end {
		v.report.Unchecked++
		v.witnessed = v.witnessed[1:]
	}
	if len(v.witnessed) > 0 {
		last := v.witnessed[len(v.witnessed)-1]
		v.report.problem(KindTruncated, v.next, last.N, fmt.Sprintf("another node witnessed entry %d, and the log ends with entry %d: its end was cut off", last.N, v.next-1))
	}
}
