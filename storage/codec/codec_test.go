package codec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"kvs/types"
)

func sample() types.Record {
	r := types.Record{
		Ref:       types.DataRef("shop/till/1"),
		Version:   types.Version{Timestamp: types.TimestampOf(1_700_000_000_000) + 3, OriginJoined: 1_600_000_000_000},
		Context:   types.Context{{Timestamp: 5}, {Timestamp: 9}},
		Flags:     types.FlagRaw,
		ExpiresAt: 1_700_000_060_000,
		PurgeAt:   1_700_003_660_000,
		Meta:      types.Meta{Owner: "root", Group: "staff", Mode: 0o7654, ContentType: "text/plain"},
		Value:     []byte("hello"),
	}
	for i := range r.Origin {
		r.Origin[i], r.UUID[i] = byte(i), byte(0xf0+i)
	}
	r.Context[1].Origin[0] = 7
	return r
}

func random(r *rand.Rand) types.Record {
	rec := sample()
	rec.NS = types.Namespace(1 + r.IntN(5))
	rec.Key = types.Key(strings.Repeat("k", 1+r.IntN(types.MaxInternalKeyLen)))
	rec.Flags = types.Flags(r.IntN(4))
	rec.Timestamp = types.Timestamp(r.Uint64())
	rec.ExpiresAt, rec.PurgeAt = r.Int64N(1<<62), r.Int64N(1<<40)
	rec.Value = bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(300))
	rec.Context = nil
	for range r.IntN(types.MaxContext + 1) {
		var v types.Version
		v.Origin[r.IntN(16)], v.Timestamp = byte(1+r.IntN(255)), types.Timestamp(r.Uint64())
		rec.Context = rec.Context.Extend(v)
	}
	return rec
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		want := random(r)
		b := Append(nil, &want)
		if len(b) > Size(&want) {
			t.Fatalf("%d bytes, Size said %d", len(b), Size(&want))
		}
		got, rest, err := Decode(append(b, "next"...))
		if err != nil || string(rest) != "next" {
			t.Fatalf("decode: %v, rest %q", err, rest)
		}
		if len(want.Value) == 0 {
			want.Value = got.Value
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		if v := ValueOf(b, len(want.Value)); !bytes.Equal(v, want.Value) {
			t.Fatalf("value %x, want %x", v, want.Value)
		}
	}
}

// The bytes of version 1 are on disks: they must not change.
func TestGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/record-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.TrimSpace(string(golden)))
	if err != nil {
		t.Fatal(err)
	}
	rec := sample()
	if got := Append(nil, &rec); !bytes.Equal(got, want) {
		t.Errorf("encoding is\n%x, not that of version 1:\n%x", got, want)
	}
	got, err := DecodeOne(want)
	if err != nil || !reflect.DeepEqual(got, rec) {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

// Every flipped bit and every cut is noticed.
func TestDamageIsNoticed(t *testing.T) {
	rec := sample()
	good := Append(nil, &rec)
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if got, err := DecodeOne(bad); !errors.Is(err, types.ErrCorrupt) {
				t.Fatalf("bit %d of byte %d flipped: %+v, %v", bit, i, got, err)
			}
		}
		if _, err := DecodeOne(good[:i]); !errors.Is(err, types.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := DecodeOne(append(good, 0)); !errors.Is(err, types.ErrCorrupt) {
		t.Error("a byte too many was not noticed")
	}
}

func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		rec := random(r)
		f.Add(Append(nil, &rec))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, rest, err := Decode(b)
		if err != nil {
			if !errors.Is(err, types.ErrCorrupt) {
				t.Fatalf("error %v is not ErrCorrupt", err)
			}
			return
		}
		if again := Append(nil, &rec); !bytes.Equal(again, b[:len(b)-len(rest)]) {
			t.Fatalf("decoded and encoded again:\n%x\nfrom\n%x", again, b)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	rec := sample()
	rec.Value = make([]byte, 200)
	buf := make([]byte, 0, 1024)
	for b.Loop() {
		buf = Append(buf[:0], &rec)
	}
}

func BenchmarkDecode(b *testing.B) {
	rec := sample()
	rec.Value = make([]byte, 200)
	buf := Append(nil, &rec)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}
