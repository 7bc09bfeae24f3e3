package types

import "bytes"

// Merged is what became of two records of one key.
type Merged struct {
	Winner Record
	// Conflict says that Loser is not an ancestor of Winner: two nodes wrote
	// without knowing of each other, and the loser must be kept. Deleting twice
	// is no conflict, since nothing is lost.
	Conflict bool
	Loser    Record
	// Second says that the winner is the second argument of Merge, or differs
	// from the first in how long it is kept: what holds the first must change.
	Second bool
}

// Merge decides between two records of one key. It is commutative, associative
// and idempotent in Winner.
func Merge(a, b Record) Merged {
	switch a.Version.Compare(b.Version) {
	case 0:
		if longer(b, a) {
			return Merged{Winner: b, Second: true}
		}
		return Merged{Winner: a}
	case 1:
		return Merged{Winner: a, Loser: b, Conflict: conflict(a, b)}
	default:
		return Merged{Winner: b, Loser: a, Conflict: conflict(b, a), Second: true}
	}
}

// longer reports whether copy a of a version is to be kept over copy b: the
// larger purge time wins, then the larger expiry, then the larger value, the
// last only so that the order is total whatever arrives.
func longer(a, b Record) bool {
	if a.PurgeAt != b.PurgeAt {
		return a.PurgeAt > b.PurgeAt
	}
	if a.ExpiresAt != b.ExpiresAt {
		return a.ExpiresAt > b.ExpiresAt
	}
	return bytes.Compare(a.Value, b.Value) > 0
}

func conflict(winner, loser Record) bool {
	if winner.Tombstone() && loser.Tombstone() {
		return false
	}
	return !winner.Context.Covers(loser.Version)
}
