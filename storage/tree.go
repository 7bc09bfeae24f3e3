package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"kvs/storage/merkle"
	"kvs/types"
	"kvs/utils/atomicfile"
)

// checkpointFile holds the Merkle tree, its sequence S and its horizon E. It is
// a file beside Badger and not an entry in it: a megabyte and a half rewritten
// every half minute would only make work for the value log's collector.
const checkpointFile = "merkle.checkpoint"

// Tree is the Merkle tree of all records. It is the store's to change.
func (s *Store) Tree() *merkle.Tree { return s.tree }

// loadTree sets tree to what is on disk at the current sequence: the checkpoint
// and the changes since, or else a count of everything.
func (s *Store) loadTree() error {
	b, err := os.ReadFile(filepath.Join(s.opts.Dir, checkpointFile))
	if err == nil {
		var tree *merkle.Tree
		var at uint64
		if tree, at, _, err = merkle.Decode(b); err == nil && at > s.db.MaxVersion() {
			err = fmt.Errorf("it is of sequence %d, and the database ends at %d: the end of its log is lost", at, s.db.MaxVersion())
		}
		if err == nil {
			s.tree, s.checkpointed = tree, at
			return s.replay(at)
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the Merkle checkpoint cannot be used; all records are counted", "error", err)
	}
	s.tree, s.checkpointed = s.countAll(s.snapshot()), 0
	return nil
}

// replay brings the tree from sequence at to the present: for each key that
// changed, the version visible at that sequence is subtracted and the current
// one added. Badger keeps the former, since its discard mark never passes a
// checkpoint.
func (s *Store) replay(at uint64) error {
	now := s.snapshot()
	defer now.Discard()
	then := s.db.NewTransactionAt(at, false)
	defer then.Discard()
	unknown := make(map[uint32]bool)
	var last []byte
	// All versions, so that the removal of an entry shows too.
	eachFrom(now, badger.IteratorOptions{Prefix: []byte{spaceRecords}, SinceTs: at, AllVersions: true}, []byte{spaceRecords}, func(item *badger.Item) bool {
		if bytes.Equal(item.Key(), last) {
			return true // an older version of a key already seen
		}
		last = item.KeyCopy(last)
		ref := refOfRecordKey(last)
		bucket := merkle.Bucket(merkle.KeyHash(ref))
		old, err := readRecord(then, ref)
		switch {
		case err == nil:
			e := merkle.EntryOf(&old)
			s.tree.Remove(e.Hash, e.Digest)
		case !errors.Is(err, types.ErrNotFound):
			unknown[bucket] = true
		}
		if item.IsDeletedOrExpired() {
			return true
		}
		rec, err := itemRecord(item, ref)
		if err != nil {
			s.reportCorrupt(err)
			unknown[bucket] = true
			return true
		}
		e := merkle.EntryOf(&rec)
		s.tree.Add(e.Hash, e.Digest)
		return true
	})
	for bucket := range unknown {
		s.recountNow(bucket)
	}
	return nil
}

// countAll builds the tree of a snapshot, which it discards. Records that
// cannot be read are not in it: to other nodes they are missing.
func (s *Store) countAll(txn *badger.Txn) *merkle.Tree {
	defer txn.Discard()
	tree := merkle.New()
	each(txn, []byte{spaceRecords}, func(item *badger.Item) bool {
		rec, err := itemRecord(item, refOfRecordKey(item.Key()))
		if err != nil {
			s.reportCorrupt(err)
			return true
		}
		e := merkle.EntryOf(&rec)
		tree.Add(e.Hash, e.Digest)
		return true
	})
	return tree
}

// Bucket lists a Merkle bucket: hash and digest of each record that can be
// read, by ascending hash.
func (s *Store) Bucket(bucket uint32) []merkle.Entry {
	txn := s.snapshot()
	defer txn.Discard()
	return s.bucket(txn, bucket)
}

func (s *Store) bucket(txn *badger.Txn, bucket uint32) []merkle.Entry {
	var out []merkle.Entry
	prefix := binary.BigEndian.AppendUint16([]byte{spaceHash}, uint16(bucket))
	each(txn, prefix, func(item *badger.Item) bool {
		_, ref := refOfHashKey(item.Key())
		rec, err := readRecord(txn, ref)
		if err != nil {
			s.reportCorrupt(&CorruptError{ref, err})
			return true
		}
		out = append(out, merkle.EntryOf(&rec))
		return true
	})
	return out
}

// recountNow sets a leaf of the tree to what is on disk, and reports whether it
// was something else. Only the committer may call it, or Open before the
// committer runs.
func (s *Store) recountNow(bucket uint32) bool {
	txn := s.snapshot()
	defer txn.Discard()
	var leaf merkle.Leaf
	for _, e := range s.bucket(txn, bucket) {
		leaf.Count++
		leaf.Sum = leaf.Sum.Plus(e.Digest)
	}
	if s.tree.Leaf(bucket) == leaf {
		return false
	}
	s.tree.SetLeaf(bucket, leaf)
	return true
}

// Recount sets the bucket of ref in the tree to what is on disk: anti-entropy
// then sees what was lost.
func (s *Store) Recount(ref types.Ref) error {
	bucket := merkle.Bucket(merkle.KeyHash(ref))
	return s.inCommitter(func() { s.recountNow(bucket) })
}

// checkpoint writes the tree of this moment and then lets Badger forget what
// only an older checkpoint needed.
func (s *Store) checkpoint() error {
	if s.seq.Load() == s.checkpointed {
		return nil
	}
	var b []byte
	var at uint64
	if err := s.inCommitter(func() {
		at = s.seq.Load()
		b = merkle.Encode(s.tree, at, s.Horizon())
	}); err != nil {
		return err
	}
	return s.writeCheckpoint(b, at)
}

func (s *Store) writeCheckpoint(b []byte, at uint64) error {
	if err := atomicfile.Write(filepath.Join(s.opts.Dir, checkpointFile), b, 0o600); err != nil {
		return fmt.Errorf("write the Merkle checkpoint: %w", err)
	}
	s.checkpointed = at
	s.letDiscard(at)
	return nil
}
