// Package replication brings the records of one node to all others, and notices
// and repairs what that missed. Three mechanisms, each complete in itself:
//
//	push          each node follows its own change sequence once per peer and
//	              sends the records that it originated; a cursor per peer is kept,
//	              so that a peer that was away is caught up from where it stood
//	anti-entropy  members compare their Merkle trees in turn and exchange exactly
//	              what differs: the safety net under everything else
//	bootstrap     an empty node streams the records of one member, newest first,
//	              and counts as filled after a completed comparison
//
// Message order; the bodies are in package wire, each a POST that is answered:
//
//	push:          A -> B  push         B answers once what it took is durable
//	anti-entropy:  A -> B  root         equal: done, in one request
//	               A -> B  nodes        for levels 1 to 3, the differing ones only
//	               A -> B  buckets      of the differing leaves
//	               (RecheckDelay: what was in flight by push arrives)
//	               A -> B  exchange     B answers with what it has newer; A makes it durable
//	               A -> B  push         what B wanted
//	bootstrap:     A -> B  root         does B have data, how much
//	               A -> B  stream ...   band by band, page by page
//	               then a comparison as above
//	heal:          A -> all fetch       the best readable copy of one record
//
// Invariants:
//   - Nothing is acknowledged before Store.Merge has made it durable, and no
//     cursor moves past a commit before the peer acknowledged all of it. A crash
//     at any point repeats deliveries, which merging makes harmless.
//   - Every peer has goroutines, connections and buffers of its own: one that
//     hangs, lies or sends garbage costs itself only. An answer counts only if it
//     names the node that was meant: an address may have got another tenant.
//   - What a peer sends reaches the store by Merge alone, which can add and
//     supersede, but not take away.
//   - A comparison's marks (see marks) are written together, and only once every
//     difference that it found was settled.
//
// It decides nothing about who is a member: it is told, by Options.Peers.
package replication
