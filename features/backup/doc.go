// Package backup writes a node's state into files, keeps them for a while, and
// brings it back.
//
// # Invariants
//
//   - A backup is the state at one commit: every record of every namespace that
//     was current there, tombstones and what has expired included, and the older
//     versions that the node keeps.
//   - A file under its final name is complete: it was written under a temporary
//     name, made durable, read back and verified as a whole, and renamed then.
//   - Nothing of a file is used before all of it is verified. Whatever is missing
//     from it, added or altered, is found, and the block is named.
//   - Memory is constant: a block of each file that is read or written, and the
//     versions of one key.
//   - Deleted stays deleted. An incremental backup names what vanished since the
//     one it follows (see Hook), and a merge into a cluster leaves out what that
//     may have forgotten a delete of.
//
// Full and incremental: a full backup stands for itself. An incremental one holds
// what changed after the sequence of the backup that it follows, which it names
// by its id; the full one and those that follow it in turn are a chain. A chain
// is of one data directory: the directory remembers which backup was made of it
// last, and only that one is followed.
//
// # Bytes
//
// Version 1; integers are big-endian. A file is a head, blocks, and an end:
//
//	size  field
//	4     magic "KVSB"
//	2     format version, 1
//	2     reserved, zero
//	      blocks: one header, any number of record blocks, one trailer
//	8     offset of the trailer block
//	8     magic "KVSBEND\n"
//
// A block:
//
//	1     kind: 1 header, 2 records, 3 trailer
//	4     number of the block, from 0
//	4     n, length of what is stored
//	4     length of the payload, at most that of the largest record and 1 MiB
//	n     the payload as one zstd frame (RFC 8878), which tells its length too
//	4     CRC32C (Castagnoli) of the block's bytes before
//
// The payload of the header and of the trailer is a JSON object with exactly the
// members of headerJSON and trailerJSON. That of a block of records is a sequence
// of entries, which no block divides:
//
//	1     kind
//	      kind 1, the current version of a key, and kind 2, an older one:
//	      the record as package storage/codec encodes it
//	      kind 3, a key that is gone:
//	1     namespace
//	var   key: uvarint length and its bytes
//	8     timestamp of the version under which it vanished
//	8     timestamp of the version before that, 0 if none is known
//
// Entries are in ascending order of namespace and key. Those of one key are its
// older versions, ascending, and then the current one. In incremental backups there
// may be an entry of kind 3 before them, or instead of them: the key vanished at
// that time, and what earlier backups have of it is of another life.
//
// The trailer counts blocks and entries and holds the SHA-256 of all bytes before
// the trailer block.
package backup
