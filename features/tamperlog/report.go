package tamperlog

import "kvs/types"

// Kind is a stable word for what is wrong with a log.
type Kind string

// The kinds of problems.
const (
	// KindAltered: a block's bytes are not those that were written, by hand or by
	// a failing disk.
	KindAltered Kind = "altered"
	// KindMissing: entries are not there.
	KindMissing Kind = "missing"
	// KindMoved: a block is under another number than its own.
	KindMoved Kind = "moved"
	// KindInserted: a block is where no block can begin.
	KindInserted Kind = "inserted"
	// KindUnlinked: a block does not follow from the one before it, so one of the
	// two is not what was written.
	KindUnlinked Kind = "unlinked"
	// KindNewChain: the operator had a new chain begun behind a broken one.
	KindNewChain Kind = "new_chain"
	// KindSequence: the store's change sequence runs backwards.
	KindSequence Kind = "sequence"
	// KindRewritten: entries are not those that another node witnessed.
	KindRewritten Kind = "rewritten"
	// KindTruncated: another node witnessed entries that are not there any more.
	KindTruncated Kind = "truncated"
	// KindWitness: witnessed checkpoints prove nothing: forged, damaged, of another
	// node or under another key.
	KindWitness Kind = "witness"
	// KindUnlogged: the store holds changes that are newer than the log's end.
	KindUnlogged Kind = "unlogged"
)

// Problem is one finding.
type Problem struct {
	Kind  Kind
	First uint64 // the entries concerned
	Last  uint64
	Text  string // what it means
}

// Gap is a time in which changes were made without the log.
type Gap struct {
	Entry    uint64 // number of the ActionOpened entry that tells of it; 0: the log's end
	AfterSeq uint64 // change sequence of the last block before it
	Seq      uint64 // and of the first after it
	Time     int64  // when it ended, Unix ms; 0 for the log's end
	Records  uint64 // whose latest change fell into it when it ended; maxUnlogged: so many or more
}

// maxFindings bounds what a report lists of each sort.
const maxFindings = 1000

// Report is what Verify found.
type Report struct {
	Node       types.NodeID
	Entries    uint64 // that could be read
	Blocks     uint64
	Last       uint64 // number of the last entry
	Head       Hash   // of the last block
	FirstTime  int64  // of the first and the last block, Unix ms
	LastTime   int64
	Refused    uint64 // refused attempts, those that are only counted included
	Suppressed uint64 // refused attempts that are only counted
	Witnessed  uint64 // checkpoints of other nodes that agree with the log
	// WitnessedTo is the number of the last entry that such a checkpoint vouches
	// for: what comes later could be rewritten by who has the node.
	WitnessedTo uint64
	// Unchecked are checkpoints of entries that cannot be read, which is a problem
	// of its own.
	Unchecked uint64
	Problems  []Problem
	Gaps      []Gap
	Unlisted  uint64 // problems and gaps beyond the bound of the lists
}

// OK reports whether nothing is wrong. Gaps are not: the log may be switched off.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

func (r *Report) problem(kind Kind, first, last uint64, text string) {
	if len(r.Problems) >= maxFindings {
		r.Unlisted++
		return
	}
	r.Problems = append(r.Problems, Problem{kind, first, last, text})
}

func (r *Report) gap(g Gap) {
	if len(r.Gaps) >= maxFindings {
		r.Unlisted++
		return
	}
	r.Gaps = append(r.Gaps, g)
}
