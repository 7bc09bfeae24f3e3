// Package tamperlog keeps an append-only, hash-chained log of every change on
// this node and of every refused attempt, committed in the same transaction as
// the change, and signed checkpoints of other nodes' logs.
//
// Entries are numbered 1, 2, 3 and so on without a gap (but for a new chain, see
// start.go). Those of one commit form a block, or a few; a block holds the hash of
// the block before it (block.go shows the bytes), and so fixes all that stands
// before it. A checkpoint is a block's hash, signed by its node; the other nodes
// keep it (Witness), and Verify holds a log against the checkpoints that others
// kept.
//
// Keyspace storage.SpaceLog:
//
//	'e' | number of the block's first entry 8                -> block
//	'w' | node 16 | line 1 | number of the last entry 8      -> witnessed checkpoint
//
// Files in the data directory: audit.key, the key that signs checkpoints (key.go),
// and audit.new-chain, which an operator makes to go on behind a broken log
// (start.go).
//
// Invariants:
//   - A change is durable exactly if its entry is.
//   - The chain goes on only from what is durable, and never from a block that is
//     damaged or does not follow from its predecessor: that would bury the break.
//   - No refused attempt vanishes: what is not listed is counted.
//   - The log holds names, version ids and ids of tokens; never values, tokens or
//     secrets.
//   - Nothing is ever deleted from the log.
//
// What Verify finds, without help from others: a changed byte anywhere; blocks
// that are missing (at the start or in the middle), moved, swapped, inserted or
// forged without redoing all that follows; the log of another node; a missing
// end, as long as some record that it told of is still there as it was then; and
// the times in which changes were made without the log.
//
// What it finds only with checkpoints that other nodes kept: an end, or a whole
// log, that was replaced by one that is consistent in itself, and a missing end
// whose records are gone or overwritten. What was witnessed cannot be changed
// unnoticed, not even by who has the node's key; what was logged after the last
// checkpoint that left the node can.
//
// What cannot be found: what a process with full control of the node never
// logged, such as changed records beside an untouched log (the Merkle comparison
// between nodes is for those); a false actor or time in an entry, since the node
// itself says both; and anything at all if every node plays along. A cut-off end
// followed by a start of the node is told as a time without the log (see
// ActionOpened), unless a witness knows better. After power loss with sync_writes
// off the end of the log is missing together with the changes: witnesses report
// that as what it looks like.
package tamperlog
