package backup

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"kvs/types"
)

var update = flag.Bool("update", false, "write testdata anew")

// sample is a small backup of every kind of entry.
func sample(t testing.TB, h Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := newWriter(&b, &h)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		older, current := other(types.Key(fmt.Sprintf("k%02d", i)), 1000, 1, "1"), other(types.Key(fmt.Sprintf("k%02d", i)), 2000, 2, "2")
		current.Context = current.Context.Extend(older.Version)
		if i%3 == 0 {
			current.Flags, current.Value, current.PurgeAt = types.FlagTombstone, nil, 20_000
		}
		err := w.record(entryOlder, &older)
		if err == nil {
			err = w.record(entryCurrent, &current)
		}
		if err == nil && h.Type == Incremental && i%4 == 0 {
			err = w.gone(types.DataRef(current.Key+"/gone"), vanished{types.TimestampOf(3000), 7})
		}
		if next := other(current.Key+"/gone", 4000, 3, "3"); err == nil && h.Type == Incremental && i%8 == 0 {
			err = w.record(entryCurrent, &next) // a second life
		}
		if err == nil && i%10 == 5 {
			err = w.flush(1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.end(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sampleHeader() Header {
	return Header{
		ID: ID(uuid.UUID{1}), Type: Incremental, Follows: ID(uuid.UUID{2}), Node: Member{types.NodeID{3}, "node", 4},
		Roster: []Member{{types.NodeID{3}, "node", 4}, {types.NodeID{5}, "", 0}}, Sequence: 9, Since: 8, Horizon: 10_000, Created: 11, Program: "1.2.3",
	}
}

// readBytes reads a backup to its end, and refuses what follows it.
func readBytes(b []byte) (Header, []entry, error) {
	r, err := newReader("test", bytes.NewReader(b))
	if err != nil {
		return Header{}, nil, err
	}
	defer r.close()
	var out []entry
	for {
		e, err := r.entry()
		if err == io.EOF && r.offset != int64(len(b)) {
			return r.header, out, &DamageError{Name: "test", Block: -1, Err: errors.New("bytes follow")}
		}
		if err == io.EOF {
			return r.header, out, nil
		}
		if err != nil {
			return r.header, nil, err
		}
		out = append(out, e)
	}
}

func TestFileRoundTrip(t *testing.T) {
	for _, h := range []Header{sampleHeader(), {ID: ID(uuid.UUID{1}), Type: Full, Sequence: 1}} {
		b := sample(t, h)
		got, entries, err := readBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, h) {
			t.Errorf("header\n%+v, want\n%+v", got, h)
		}
		want := 60
		if h.Type == Incremental {
			want = 72
		}
		if len(entries) != want {
			t.Errorf("%d entries, want %d", len(entries), want)
		}
		path := filepath.Join(t.TempDir(), "kvs-n-20260102T030405Z-full.kvsb")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		quick, err := ReadInfo(path)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := Verify(t.Context(), path)
		if err != nil || !reflect.DeepEqual(quick, whole) {
			t.Errorf("the ends say %+v, the whole %+v, %v", quick, whole, err)
		}
	}
}

// Files that are kept must stay readable, whatever writes new ones.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "backup-v1.hex")
	if *update {
		if err := os.WriteFile(path, []byte(hex.Dump(sample(t, sampleHeader()))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for line := range strings.Lines(string(text)) {
		if len(line) < 60 {
			continue
		}
		part, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[10:58]), " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, part...)
	}
	h, entries, err := readBytes(b)
	if err != nil || !reflect.DeepEqual(h, sampleHeader()) || len(entries) != 72 {
		t.Fatalf("%+v, %d entries, %v", h, len(entries), err)
	}
	_, fresh, err := readBytes(sample(t, sampleHeader()))
	if err != nil || !reflect.DeepEqual(entries, fresh) {
		t.Errorf("the entries are not those of the sample: %v", err)
	}
}

// Every truncation is found, and every flipped bit; the error says where.
func TestDamageIsFound(t *testing.T) {
	b := sample(t, sampleHeader())
	damaged := func(what string, b []byte) {
		t.Helper()
		_, _, err := readBytes(b)
		var d *DamageError
		if !errors.As(err, &d) || !errors.Is(err, types.ErrCorrupt) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for n := range b {
		damaged(fmt.Sprintf("cut to %d bytes", n), b[:n])
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << r.IntN(8)
		damaged(fmt.Sprintf("a bit of byte %d", i), bad)
	}
	damaged("a byte more", append(bytes.Clone(b), 0))
	damaged("twice", append(bytes.Clone(b), b...))

	blocks := blocksOf(t, b)
	if len(blocks) < 5 {
		t.Fatalf("only %d blocks", len(blocks))
	}
	cut := func(i, j int) []byte { return b[blocks[i]:blocks[j]] }
	end := len(blocks) - 1
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	damaged("a block is missing", join(b[:blocks[1]], b[blocks[2]:]))
	damaged("a block is there twice", join(b[:blocks[2]], cut(1, 2), b[blocks[2]:]))
	damaged("two blocks have changed places", join(b[:blocks[1]], cut(2, 3), cut(1, 2), b[blocks[3]:]))
	damaged("no records", join(b[:blocks[1]], b[blocks[end]:]))
	damaged("the header is missing", join(b[:headSize], b[blocks[1]:]))
	damaged("a block of another backup", join(b[:blocks[1]], func() []byte {
		h := sampleHeader()
		h.Program = "other"
		o := sample(t, h)
		at := blocksOf(t, o)
		return o[at[1]:]
	}()))

	bad := bytes.Clone(b)
	bad[blocks[2]+blockHead+3] ^= 1
	_, _, err := readBytes(bad)
	if want := fmt.Sprintf("test is damaged: block 2, at offset %d: its checksum does not match", blocks[2]); err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	_, _, err = readBytes([]byte("KVSB\x00\x02\x00\x00"))
	if err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("a newer format: %v", err)
	}
}

// blocksOf gives the offsets of all blocks.
func blocksOf(t *testing.T, b []byte) (at []int) {
	t.Helper()
	for i := headSize; i < len(b)-endSize; {
		at = append(at, i)
		f, err := parseFrame(b[i:])
		if err != nil {
			t.Fatal(err)
		}
		i += blockHead + f.stored + blockTrailer
	}
	return at
}

// What is well formed and still no backup is refused too.
func TestOrderIsChecked(t *testing.T) {
	a, b := other("a", 1000, 1, "1"), other("b", 1000, 1, "1")
	newer := other("a", 2000, 2, "2")
	for name, fill := range map[string]func(w *writer){
		"keys out of order":       func(w *writer) { w.record(entryCurrent, &b); w.record(entryCurrent, &a) },
		"a key twice":             func(w *writer) { w.record(entryCurrent, &a); w.record(entryCurrent, &newer) },
		"versions out of order":   func(w *writer) { w.record(entryOlder, &newer); w.record(entryCurrent, &a) },
		"no current version":      func(w *writer) { w.record(entryOlder, &a); w.record(entryCurrent, &b) },
		"no current version last": func(w *writer) { w.record(entryOlder, &a) },
		"gone in a full one":      func(w *writer) { w.gone(a.Ref, vanished{}) },
		"there and gone":          func(w *writer) { w.record(entryOlder, &a); w.gone(a.Ref, vanished{}) },
		"counts":                  func(w *writer) { w.record(entryCurrent, &a); w.trailer.Records++ },
		"newest":                  func(w *writer) { w.record(entryCurrent, &a); w.trailer.Newest++ },
		"kind":                    func(w *writer) { w.payload = append(w.payload, 9) },
		"a record cut short":      func(w *writer) { w.record(entryCurrent, &a); w.payload = w.payload[:len(w.payload)-5] },
		"a second header":         func(w *writer) { h := sampleHeader(); p, _ := h.encode(); w.emit(blockHeader, p) },
	} {
		var out bytes.Buffer
		w, err := newWriter(&out, &Header{ID: ID(uuid.UUID{1}), Type: Full, Sequence: 1})
		if err != nil {
			t.Fatal(err)
		}
		fill(w)
		if _, err := w.end(); err != nil {
			t.Fatal(err)
		}
		var d *DamageError
		if _, _, err := readBytes(out.Bytes()); !errors.As(err, &d) || d.Block < 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A block that claims more than it has costs no memory.
func TestClaimsAreNotBelieved(t *testing.T) {
	b := sample(t, sampleHeader())
	at := blocksOf(t, b)[1]
	f, _ := parseFrame(b[at:])
	f.stored, f.payload = maxStored, maxPayload
	f.append(b[at:at])
	if n := testing.AllocsPerRun(1, func() { readBytes(b) }); n > 10_000 {
		t.Errorf("%v allocations", n)
	}
	var d *DamageError
	if _, _, err := readBytes(b); !errors.As(err, &d) || d.Block != 1 {
		t.Errorf("%v", err)
	}
}

// FuzzEntries reads what is well formed up to the entries of a block.
func FuzzEntries(f *testing.F) {
	for _, h := range []Header{sampleHeader(), {ID: ID(uuid.UUID{1}), Type: Full, Sequence: 1}} {
		r, err := newReader("seed", bytes.NewReader(sample(f, h)))
		if err != nil {
			f.Fatal(err)
		}
		_, payload, err := r.next()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload, h.Type == Full)
	}
	f.Fuzz(func(t *testing.T, payload []byte, full bool) {
		h := sampleHeader()
		if full {
			h = Header{ID: ID(uuid.UUID{1}), Type: Full, Sequence: 1}
		}
		write := func(fill func(w *writer) error) []byte {
			var out bytes.Buffer
			w, err := newWriter(&out, &h)
			if err == nil {
				err = fill(w)
			}
			if err == nil {
				_, err = w.end()
			}
			if err != nil {
				t.Fatal(err)
			}
			return out.Bytes()
		}
		_, entries, _ := readBytes(write(func(w *writer) error { w.payload = payload; return nil }))
		// That the counts of the trailer are missing is found last, and all else
		// was read by then: what is in order can be written and read again.
		last := entry{}
		r := reader{header: h}
		for rest := payload; len(rest) > 0; {
			e, after, err := decodeEntry(rest)
			if err != nil || r.follows(&e) != nil {
				return
			}
			rest, r.last, last = after, e, e
			entries = append(entries, e)
		}
		if last.kind == entryOlder {
			return
		}
		again := write(func(w *writer) (err error) {
			for i := range entries {
				if e := &entries[i]; err == nil && e.kind == entryGone {
					err = w.gone(e.rec.Ref, e.gone)
				} else if err == nil {
					err = w.record(e.kind, &e.rec)
				}
			}
			return err
		})
		if _, got, err := readBytes(again); err != nil || !reflect.DeepEqual(got, entries) {
			t.Fatalf("%d entries were read again as %d: %v", len(entries), len(got), err)
		}
	})
}

// FuzzPayload reads what stands inside the checksums.
func FuzzPayload(f *testing.F) {
	rec := other("a", 1000, 1, "1")
	f.Add(appendGone(appendRecord(nil, entryCurrent, &rec), types.DataRef("b"), vanished{1, 2}))
	h := sampleHeader()
	b, _ := h.encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeHeader(b)
		decodeTrailer(b)
		dec, err := newDecoder()
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		if p, err := decompress(dec, b, 100); err == nil && len(p) != 100 {
			t.Fatalf("%d bytes", len(p))
		}
		for rest := b; len(rest) > 0; {
			e, after, err := decodeEntry(rest)
			if err != nil {
				return
			}
			again := appendGone(nil, e.rec.Ref, e.gone)
			if e.kind != entryGone {
				again = appendRecord(nil, e.kind, &e.rec)
			}
			if !bytes.Equal(again, rest[:len(rest)-len(after)]) {
				t.Fatalf("%x is %x when written again", rest[:len(rest)-len(after)], again)
			}
			rest = after
		}
	})
}
