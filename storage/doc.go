// Package storage keeps a node's records in Badger, behind one committer.
//
// Invariants:
//   - One goroutine, the committer, writes. It takes what is waiting, decides
//     each mutation against the record that is current at that moment, and
//     commits all of it in one transaction with one fsync: no transaction
//     conflicts, no lost update, and the order of the sequence is the order of
//     the decisions.
//   - The commit sequence is Badger's version (managed mode). It never runs
//     backwards, whatever the log lost: it continues above Badger's highest
//     version and above a ceiling kept in a file of its own.
//   - The Merkle tree in memory equals the records on disk at every sequence
//     number. A checkpoint of it is written now and then; on start the changes
//     since are replayed. Badger may forget old versions only up to the last
//     durable checkpoint, because the replay subtracts them.
//   - A record that fails its checksum is never served.
//   - What is answered is on disk (with SyncWrites).
//
// The package decides nothing about who may write, and talks to no other node.
package storage
