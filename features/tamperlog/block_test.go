package tamperlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"kvs/storage"
	"kvs/types"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares b with the file's hexadecimal digits.
func golden(t *testing.T, file string, b []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	digits, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.TrimSpace(string(digits)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("encoding is\n%x, not that of %s:\n%x", b, file, want)
	}
}

func version(b byte) (v types.VersionID) {
	for i := range v {
		v[i] = b + byte(i)
	}
	return v
}

func sample() Block {
	ann := storage.Actor{Subject: "ann", Token: "jti-1", Address: "10.0.0.7"}
	b := Block{First: 300, Previous: 7, Seq: 1234, Time: 1_700_000_000_000, Prev: Hash(sha256.Sum256([]byte("before"))), Entries: []Entry{
		{Action: ActionOpened, By: storage.Actor{Subject: "node:x"}, Count: 3, Detail: "continued"},
		{Action: ActionRefused, NS: types.NSData, Key: "secret/k", By: ann, Count: 1, Detail: "forbidden"},
		{Action: ActionGap, Count: 900},
		{Action: ActionPut, NS: types.NSData, Key: "a", After: version(1), By: ann},
		{Action: ActionMetadata, NS: types.NSData, Key: "a", Before: version(1), After: version(2), By: storage.Actor{Subject: "root"}},
		{Action: ActionDelete, NS: types.NSAuth, Key: "user/1", Before: version(3), After: version(4), By: ann},
		{Action: ActionMerge, NS: types.NSJobs, Key: "\x00\xff", After: version(5), By: storage.Actor{Subject: "node:x"}, Detail: "deleted"},
	}}
	complete(&b)
	return b
}

// complete fills in what follows from the rest.
func complete(b *Block) {
	for i := range b.Entries {
		e := &b.Entries[i]
		e.N, e.Time, e.Seq = b.First+uint64(i), b.Time, b.Seq
	}
	enc := b.Encode()
	b.Hash = Hash(enc[len(enc)-sha256.Size:])
}

func randomText(r *rand.Rand, most int) string {
	b := make([]byte, r.IntN(most+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func randomBlock(r *rand.Rand, entries, texts int) Block {
	b := Block{First: 1 + r.Uint64N(maxNumber), Seq: r.Uint64(), Time: r.Int64N(1 << 62)}
	b.Previous = r.Uint64N(min(b.First, maxEntries+1))
	for i := range b.Prev {
		b.Prev[i] = byte(r.Uint32())
	}
	actors := make([]storage.Actor, 1+r.IntN(5))
	for i := range actors {
		actors[i] = storage.Actor{Subject: randomText(r, 3), Token: randomText(r, 2), Address: randomText(r, min(maxText, texts))}
	}
	b.Entries = make([]Entry, 1+r.IntN(entries))
	for i := range b.Entries {
		e := &b.Entries[i]
		e.Action, e.NS, e.Key = Action(1+r.IntN(int(lastAction))), types.Namespace(r.IntN(6)), randomText(r, min(maxKey, texts))
		e.By = actors[r.IntN(len(actors))]
		if r.IntN(2) == 0 {
			e.Before = version(byte(r.Uint32()))
		}
		if r.IntN(2) == 0 {
			e.After = version(byte(r.Uint32()))
		}
		if r.IntN(4) == 0 {
			e.Count, e.Detail = 1+r.Uint64N(1<<63), randomText(r, min(maxText, texts))
		}
	}
	complete(&b)
	return b
}

func TestBlockRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		want := randomBlock(r, 40, maxKey)
		got, err := DecodeBlock(want.Encode())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v; got\n%+v, want\n%+v", err, got, want)
		}
	}
}

// The bytes of version 1 are on disks: they must not change.
func TestGoldenBlock(t *testing.T) {
	b := sample()
	golden(t, "testdata/block-v1.hex", b.Encode())
	got, err := DecodeBlock(b.Encode())
	if err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestDamageIsNoticed(t *testing.T) {
	b := sample()
	good := b.Encode()
	for i := range good {
		bad := bytes.Clone(good)
		for bit := range 8 {
			bad[i] = good[i] ^ 1<<bit
			if got, err := DecodeBlock(bad); !errors.Is(err, types.ErrCorrupt) {
				t.Fatalf("bit %d of byte %d flipped: %+v, %v", bit, i, got, err)
			}
		}
		if _, err := DecodeBlock(good[:i]); !errors.Is(err, types.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := DecodeBlock(append(good, 0)); !errors.Is(err, types.ErrCorrupt) {
		t.Error("a byte too many was not noticed")
	}
}

// seal gives a block with a right hash, whatever it holds.
func seal(body []byte) []byte {
	hash := sha256.Sum256(body)
	return append(bytes.Clone(body), hash[:]...)
}

// What has a right hash may still be no block: somebody else may have made it.
func TestSecondSpellingsAreRefused(t *testing.T) {
	prev := make([]byte, sha256.Size)
	block := func(numbers []byte, entries ...byte) []byte {
		return seal(append(append(append([]byte{blockVersion}, numbers...), prev...), entries...))
	}
	plain := []byte{0, 1, 1, 0, 5, 6}
	if _, err := DecodeBlock(block(plain, byte(ActionGap), 0, 0, 0)); err != nil {
		t.Fatalf("the block that the others differ from: %v", err)
	}
	actor := []byte{1, 'u', 0, 0}
	for name, b := range map[string][]byte{
		"version 2":               seal(append(append([]byte{2, 0, 1, 1, 0, 5, 6}, prev...), byte(ActionGap), 0, 0, 0)),
		"entry 0":                 block([]byte{0, 1, 0, 0, 5, 6}, byte(ActionGap), 0, 0, 0),
		"no entries":              block([]byte{0, 0, 1, 0, 5, 6}, byte(ActionGap), 0, 0, 0),
		"fewer entries than said": block([]byte{0, 2, 1, 0, 5, 6}, byte(ActionGap), 0, 0, 0),
		"more entries than said":  block(plain, byte(ActionGap), 0, 0, 0, byte(ActionGap), 0, 0, 0),
		"previous reaches below":  block([]byte{0, 1, 1, 1, 5, 6}, byte(ActionGap), 0, 0, 0),
		"long integer":            block([]byte{0, 1, 0x81, 0, 0, 5, 6}, byte(ActionGap), 0, 0, 0),
		"too many entries":        block([]byte{0x10, 1, 1, 0, 5, 6}, bytes.Repeat([]byte{byte(ActionGap), 0, 0, 0}, maxEntries+1)...),
		"action 0":                block(plain, 0, 0, 0, 0),
		"action 8":                block(plain, 8, 0, 0, 0),
		"damaged as an action":    block(plain, byte(ActionDamaged), 0, 0, 0),
		"namespace 6":             block(plain, byte(ActionGap), 6, 0, 0),
		"key too long":            block(plain, append([]byte{byte(ActionGap), 0, 0xff, 0x7f}, make([]byte, 1<<14)...)...),
		"key beyond the end":      block(plain, byte(ActionGap), 0, 9, 0),
		"empty before":            block(plain, append([]byte{byte(ActionPut) | flagBefore, 1, 0}, make([]byte, 17)...)...),
		"count 0":                 block(plain, byte(ActionGap)|flagCount, 0, 0, 0, 0),
		"empty detail":            block(plain, byte(ActionGap)|flagDetail, 0, 0, 0, 0),
		"actor 2 first":           block(plain, append([]byte{byte(ActionGap), 0, 0, 2}, actor...)...),
		"empty actor":             block(plain, byte(ActionGap), 0, 0, 1, 0, 0, 0),
		"actor twice": block([]byte{0, 2, 1, 0, 5, 6}, append(append(append([]byte{byte(ActionGap), 0, 0, 1}, actor...),
			byte(ActionGap), 0, 0, 2), actor...)...),
	} {
		if got, err := DecodeBlock(b); !errors.Is(err, types.ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// Memory is taken for what is there, and not for what is said to be.
	_, err := DecodeBlock(block([]byte{0x10, 0, 1, 0, 5, 6}, byte(ActionGap), 0, 0, 0))
	if err == nil || !strings.Contains(err.Error(), "no room for so many entries") {
		t.Errorf("4096 entries in four bytes: %v", err)
	}
}

// Too long texts are cut, so that every block that is written can be read.
func TestLongTextsAreCut(t *testing.T) {
	long := strings.Repeat("x", 5000)
	b := Block{First: 1, Entries: []Entry{{Action: ActionRefused, Key: long, Detail: long, By: storage.Actor{Subject: long, Token: long, Address: long}, Count: 1}}}
	got, err := DecodeBlock(b.Encode())
	if err != nil {
		t.Fatal(err)
	}
	e := got.Entries[0]
	if len(e.Key) != maxKey || len(e.Detail) != maxText || len(e.By.Subject) != maxText || len(e.By.Token) != maxText || len(e.By.Address) != maxText {
		t.Errorf("%+v", e)
	}
}

func FuzzDecodeBlock(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b := randomBlock(r, 4, 5) // small ones, which are minimized quickly
		f.Add(b.Encode())
	}
	b := sample()
	f.Add(b.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		// With a right hash too, or nothing behind it would ever be reached.
		sealed := data
		if len(data) >= sha256.Size {
			sealed = seal(data[:len(data)-sha256.Size])
		}
		for _, b := range [][]byte{data, sealed} {
			block, err := DecodeBlock(b)
			if err != nil {
				if !errors.Is(err, types.ErrCorrupt) {
					t.Fatalf("error %v is not ErrCorrupt", err)
				}
				continue
			}
			if again := block.Encode(); !bytes.Equal(again, b) {
				t.Fatalf("decoded and encoded again:\n%x\nfrom\n%x", again, b)
			}
			h, err := decodeHeader(b)
			if err != nil || h.first != block.First || h.last() != block.Last() || h.time != block.Time {
				t.Fatalf("header %+v, %v of block %+v", h, err, block)
			}
		}
	})
}

func TestActionNames(t *testing.T) {
	for a := ActionPut; a <= lastAction; a++ {
		if got, err := ParseAction(a.String()); err != nil || got != a {
			t.Errorf("%d: %q is read as %v, %v", a, a, got, err)
		}
	}
	if _, err := ParseAction("action(9)"); err == nil {
		t.Error("a name that is none was taken")
	}
}
