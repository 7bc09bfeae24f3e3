package merkle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

func sampleTree() *Tree {
	t := New()
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		t.Add(r.Uint64(), Digest{r.Uint64(), r.Uint64()})
	}
	return t
}

func TestCheckpointRoundTrip(t *testing.T) {
	tree := sampleTree()
	b := Encode(tree, 42, 1_700_000_000_000)
	got, seq, horizon, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	root, count := tree.Root()
	gotRoot, gotCount := got.Root()
	if !got.Equal(tree) || gotRoot != root || gotCount != count || seq != 42 || horizon != 1_700_000_000_000 {
		t.Fatalf("decoded root %x, count %d, seq %d, horizon %d", gotRoot, gotCount, seq, horizon)
	}
	if !bytes.Equal(Encode(got, seq, horizon), b) {
		t.Fatal("encoding what was decoded gives other bytes")
	}
}

// reseal gives b a right checksum again.
func reseal(b []byte) []byte {
	n := len(b) - 4
	binary.BigEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli))
	return b
}

func TestCheckpointRefusals(t *testing.T) {
	good := Encode(sampleTree(), 42, 7)
	cases := map[string]func(b []byte) []byte{
		"empty":        func(b []byte) []byte { return nil },
		"cut short":    func(b []byte) []byte { return b[:len(b)-1] },
		"too long":     func(b []byte) []byte { return append(b, 0) },
		"magic":        func(b []byte) []byte { b[0] ^= 1; return reseal(b) },
		"version":      func(b []byte) []byte { b[5]++; return reseal(b) },
		"reserved":     func(b []byte) []byte { b[7] = 1; return reseal(b) },
		"horizon":      func(b []byte) []byte { b[16] |= 0x80; return reseal(b) },
		"flipped leaf": func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"flipped sum":  func(b []byte) []byte { b[len(b)-1] ^= 4; return b },
	}
	for name, damage := range cases {
		if _, _, _, err := Decode(damage(bytes.Clone(good))); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// FuzzDecode splices the fuzzer's bytes into a checkpoint, since it would never
// find the size and the checksum by itself.
func FuzzDecode(f *testing.F) {
	good := Encode(sampleTree(), 42, 7)
	f.Add(uint32(0), []byte("KVSM"), true)
	f.Add(uint32(4), []byte{0, 2}, true)
	f.Add(uint32(16), []byte{255}, true)
	f.Add(uint32(24), []byte{1, 2, 3}, true)
	f.Add(uint32(len(good)-2), []byte{9, 9, 9}, false)
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, seal bool) {
		b := bytes.Clone(good)
		b = append(b[:int(at)%len(b)], append(patch, b[min(len(b), int(at)%len(b)+len(patch)):]...)...)
		if seal && len(b) > 4 {
			reseal(b)
		}
		tree, seq, horizon, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrCheckpoint) {
				t.Fatalf("error %v does not wrap ErrCheckpoint", err)
			}
			return
		}
		if !bytes.Equal(Encode(tree, seq, horizon), b) {
			t.Fatal("Decode accepted bytes that Encode does not write")
		}
	})
}
