package tamperlog

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"kvs/types"
)

// Checkpoint says, signed by a node: the block of my log that ends with entry N
// has the hash Head, at this time.
//
// Layout of version 1; integers are big-endian:
//
//	offset  size  field
//	0       1     format version, 1
//	1       16    node
//	17      8     n, 1 to 2^62
//	25      32    head
//	57      8     time of the block, Unix ms
//	65      32    public key, Ed25519 (RFC 8032)
//	97      64    signature of "kvs audit checkpoint v1", a zero byte, and all that stands before it
type Checkpoint struct {
	Node      types.NodeID
	N         uint64
	Head      Hash
	Time      int64 // Unix ms
	PublicKey PublicKey
	Signature [ed25519.SignatureSize]byte
}

const (
	checkpointVersion = 1
	checkpointSigned  = 1 + 16 + 8 + 32 + 8 + ed25519.PublicKeySize

	// CheckpointSize is the length of an encoded checkpoint, in bytes.
	CheckpointSize = checkpointSigned + ed25519.SignatureSize

	checkpointDomain = "kvs audit checkpoint v1\x00"
)

// Encode gives the checkpoint's bytes.
func (c *Checkpoint) Encode() []byte {
	b := append(make([]byte, 0, CheckpointSize), checkpointVersion)
	b = append(b, c.Node[:]...)
	b = appendNumber(b, c.N)
	b = append(b, c.Head[:]...)
	b = appendNumber(b, uint64(c.Time))
	b = append(b, c.PublicKey[:]...)
	return append(b, c.Signature[:]...)
}

// DecodeCheckpoint reads b as exactly one checkpoint. It does not look at the
// signature; see Verify. The error is a *FormatError.
func DecodeCheckpoint(b []byte) (c Checkpoint, err error) {
	switch {
	case len(b) != CheckpointSize:
		return c, &FormatError{len(b), fmt.Sprintf("a checkpoint has %d bytes, this one ends", CheckpointSize)}
	case b[0] != checkpointVersion:
		return c, wrongVersion(b[0])
	}
	c.Node = types.NodeID(b[1:17])
	c.N = binary.BigEndian.Uint64(b[17:])
	c.Head = Hash(b[25:57])
	c.Time = int64(binary.BigEndian.Uint64(b[57:]))
	c.PublicKey = PublicKey(b[65:97])
	c.Signature = [ed25519.SignatureSize]byte(b[97:])
	switch {
	case c.N == 0 || c.N > maxNumber:
		return Checkpoint{}, &FormatError{17, "the number is out of range"}
	case c.Time < 0 || c.Time > 1<<62:
		return Checkpoint{}, &FormatError{57, "the time is out of range"}
	}
	return c, nil
}

// Verify reports whether the holder of PublicKey signed the checkpoint.
func (c *Checkpoint) Verify() bool {
	return ed25519.Verify(c.PublicKey[:], c.message(), c.Signature[:])
}

func (c *Checkpoint) message() []byte {
	return append([]byte(checkpointDomain), c.Encode()[:checkpointSigned]...)
}

func (c *Checkpoint) sign(key ed25519.PrivateKey) {
	c.PublicKey = publicOf(key)
	c.Signature = [ed25519.SignatureSize]byte(ed25519.Sign(key, c.message()))
}

// Checkpoint gives the newest checkpoint of this log, for other nodes to keep.
// It is false if the log is empty, or if nothing is new since the checkpoint
// that was confirmed. Without a new block it gives the same one again.
func (l *Log) Checkpoint() (Checkpoint, bool) {
	l.mu.Lock()
	end, confirmed, node, key := l.durable, l.confirmed, l.node, l.key
	l.mu.Unlock()
	if end.count == 0 || end.n == confirmed.n && end.hash == confirmed.hash {
		return Checkpoint{}, false
	}
	c := Checkpoint{Node: node, N: end.n, Head: end.hash, Time: end.time}
	c.sign(key) // without the lock, for which commits would wait
	return c, true
}

// Confirm says that c, which Checkpoint gave, was kept where it should be.
func (l *Log) Confirm(c Checkpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Node == l.node && c.N >= l.confirmed.n {
		l.confirmed.n, l.confirmed.hash = c.N, c.Head
	}
}
