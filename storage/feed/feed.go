// Package feed holds the values in which a store tells what it committed and
// what it would not take: the storage engine makes them, replication reads
// them, and neither needs the other for it.
package feed

import "kvs/types"

// Change is one record that a commit made current. The changes of one atomic
// batch share a non-zero Unit, unique within their commit.
type Change struct {
	Record types.Record
	Unit   int
}

// Commit is what one commit changed, in order. Seq is its place in the node's
// change sequence.
type Commit struct {
	Seq     uint64
	Changes []Change
}

// Refusal names a record of another node that was not stored, and why.
type Refusal struct {
	Ref types.Ref
	Err error
}
