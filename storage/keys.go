package storage

import (
	"encoding/binary"

	"kvs/types"
)

// Every key in Badger begins with the byte of its keyspace. This is the whole
// list; nothing else is in the database.
const (
	// spaceRecords: ns 1 | key -> record (package codec). Point reads and
	// ordered ranges; Badger's older versions of the entry are the history.
	spaceRecords = 'r'
	// spaceHash: key hash 8 | ns 1 | key -> nothing. Lists a Merkle bucket.
	// Written on the first insert of a key only.
	spaceHash = 'h'
	// SpaceRevisions: ns 1 | key length 2 | key | uuid 16 -> record. Versions
	// overwritten within their own commit, which Badger's versions cannot keep.
	SpaceRevisions = 'v'
	// spacePurge: purge_at 8 | ns 1 | key -> nothing. Only for records that
	// have a purge time.
	spacePurge = 'p'
	// SpaceLog: n 8 -> blocks and checkpoints of tamper logs; see package tamperlog.
	SpaceLog = 'l'
	// SpaceWatch: kind 1 | ... -> what is remembered of the time of commits; see
	// package watch.
	SpaceWatch = 'w'
	// SpaceBackup: seq 8 -> what the next incremental backup has to know of keys
	// that may be gone by then; see features/backup.
	SpaceBackup = 'b'
	// spaceFlush: a single key, which is there only while it is being dropped
	// again; see flush.
	spaceFlush = 'x'
	// spaceMeta: name -> value. Peers' cursors and marks, horizon.
	spaceMeta = 'm'
)

func recordKey(ref types.Ref) []byte {
	b := make([]byte, 0, 2+len(ref.Key))
	return append(append(b, spaceRecords, byte(ref.NS)), ref.Key...)
}

// refOfRecordKey is the inverse of recordKey.
func refOfRecordKey(b []byte) types.Ref {
	return types.Ref{NS: types.Namespace(b[1]), Key: types.Key(b[2:])}
}

func hashKey(hash uint64, ref types.Ref) []byte {
	b := make([]byte, 0, 10+len(ref.Key))
	b = binary.BigEndian.AppendUint64(append(b, spaceHash), hash)
	return append(append(b, byte(ref.NS)), ref.Key...)
}

// refOfHashKey is the inverse of hashKey.
func refOfHashKey(b []byte) (uint64, types.Ref) {
	return binary.BigEndian.Uint64(b[1:]), types.Ref{NS: types.Namespace(b[9]), Key: types.Key(b[10:])}
}

func purgeKey(at int64, ref types.Ref) []byte {
	b := make([]byte, 0, 10+len(ref.Key))
	b = binary.BigEndian.AppendUint64(append(b, spacePurge), uint64(at))
	return append(append(b, byte(ref.NS)), ref.Key...)
}

func metaKey(name string) []byte { return append([]byte{spaceMeta}, name...) }
