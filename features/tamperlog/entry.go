package tamperlog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"kvs/storage"
	"kvs/types"
)

// Action says what an entry is about. The values are part of the disk format.
type Action uint8

// The actions.
const (
	// ActionPut: a value was written. Before is the version that it replaced, a
	// tombstone or an expired one included.
	ActionPut Action = 1
	// ActionDelete: After is the tombstone.
	ActionDelete Action = 2
	// ActionMetadata: the same value was written with another owner, group, mode
	// or expiry.
	ActionMetadata Action = 3
	// ActionMerge: a version came from another node, By "node:" and its origin.
	// Who asked for it stands in the log of that node, under the same version.
	ActionMerge Action = 4
	// ActionRefused: an attempt was refused Count times, Detail says why.
	ActionRefused Action = 5
	// ActionOpened: a process began or continued the log. Count is how many
	// records had been changed without it since the entry before, at most
	// maxUnlogged; Detail names the signing key.
	ActionOpened Action = 6
	// ActionGap: Count refused attempts were too many to be listed.
	ActionGap Action = 7

	lastAction = ActionGap

	// ActionDamaged is in no log: Entries gives it where a block cannot be read.
	ActionDamaged Action = 15
)

var actionNames = map[Action]string{
	ActionPut: "put", ActionDelete: "delete", ActionMetadata: "metadata", ActionMerge: "merge",
	ActionRefused: "refused", ActionOpened: "opened", ActionGap: "gap", ActionDamaged: "damaged",
}

// String gives the name that ParseAction reads.
func (a Action) String() string {
	if name, ok := actionNames[a]; ok {
		return name
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// ParseAction reads an action's name.
func ParseAction(name string) (Action, error) {
	for a, n := range actionNames {
		if n == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("there is no action %q: put, delete, metadata, merge, refused, opened, gap and damaged are known", name)
}

// Entry is one line of the log. N, Time and Seq are the block's.
type Entry struct {
	N      uint64 // its number, from 1
	Time   int64  // of the commit, Unix ms
	Seq    uint64 // the store's change sequence at the commit
	Action Action
	NS     types.Namespace // 0 where no record is concerned
	Key    string
	Before types.VersionID // zero: none
	After  types.VersionID // zero: none
	By     storage.Actor
	Count  uint64 // see the actions
	Detail string
}

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// String gives hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// genesis stands for the predecessor of a chain's first block, whose first entry
// has the number first. It depends on the node, so that another node's log does
// not pass for this one's.
func genesis(node types.NodeID, first uint64) Hash {
	b := append([]byte("kvs audit chain v1\x00"), node[:]...)
	return sha256.Sum256(appendNumber(b, first))
}
