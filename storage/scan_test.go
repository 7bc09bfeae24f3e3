package storage_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// A random range, page by page, equals what a dumb filter over all keys gives.
func TestScanAgainstOracle(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	r := rand.New(rand.NewPCG(11, 12))
	words := []string{"a", "b", "ab", "é", "zz", "a-b", "a-c"}
	var keys []string
	for range 120 {
		parts := make([]string, 1+r.IntN(3))
		for i := range parts {
			parts[i] = words[r.IntN(len(words))]
		}
		key := strings.Join(parts, "/")
		if slices.Contains(keys, key) {
			continue
		}
		keys = append(keys, key)
		storagetest.Put(t, s, types.Key(key), fmt.Sprintf("%q", key))
	}
	for i := 0; i < len(keys); i += 4 {
		storagetest.Delete(t, s, types.Key(keys[i]))
	}
	live := slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return slices.Index(keys, k)%4 == 0 })
	slices.Sort(live)

	pick := func(n int) types.Key {
		if r.IntN(n) > 0 {
			return ""
		}
		return types.Key(keys[r.IntN(len(keys))])
	}
	for range 600 {
		o := storage.ScanOptions{NS: types.NSData, Start: pick(2), End: pick(2), Limit: 1 + r.IntN(8), Reverse: r.IntN(2) == 0}
		if p := pick(2); p != "" {
			o.Prefix = p[:1+r.IntN(len(p))]
		}
		o.Delimiter = []string{"", "/", "-"}[r.IntN(3)]
		want := oracle(live, o)
		var got []string
		for page, next := 0, o; ; page++ {
			res, err := s.Scan(t.Context(), next)
			if err != nil {
				t.Fatal(err)
			}
			var items []string
			for _, rec := range res.Records {
				items = append(items, string(rec.Key))
			}
			for _, p := range res.Prefixes {
				items = append(items, string(p)+"*")
			}
			if len(items) > o.Limit || page > len(keys) {
				t.Fatalf("%+v: page %d of %d items", o, page, len(items))
			}
			got = append(got, items...)
			if !res.More {
				break
			}
			if o.Reverse {
				next.End = res.Next
			} else {
				next.Start = res.Next
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%+v:\ngot  %q\nwant %q", o, got, want)
		}
	}
}

func oracle(keys []string, o storage.ScanOptions) []string {
	var out []string
	for _, k := range keys {
		if !strings.HasPrefix(k, string(o.Prefix)) || k < string(o.Start) || o.End != "" && k >= string(o.End) {
			continue
		}
		if o.Delimiter != "" {
			if head, _, ok := strings.Cut(k[len(o.Prefix):], o.Delimiter); ok {
				k = string(o.Prefix) + head + o.Delimiter + "*"
			}
		}
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// The order within a page is that of the keys, in both directions.
func TestScanOrder(t *testing.T) {
	s := storagetest.Open(t, storage.Options{})
	for _, k := range []types.Key{"b", "a", "c/1", "c/2", "d"} {
		storagetest.Put(t, s, k, `0`)
	}
	for _, reverse := range []bool{false, true} {
		res, err := s.Scan(t.Context(), storage.ScanOptions{NS: types.NSData, Limit: 10, Reverse: reverse, KeysOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []types.Key
		for _, rec := range res.Records {
			if rec.Value != nil {
				t.Error("a value came with keys only")
			}
			got = append(got, rec.Key)
		}
		want := []types.Key{"a", "b", "c/1", "c/2", "d"}
		if reverse {
			slices.Reverse(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("reverse %v: %q", reverse, got)
		}
	}
}

func TestChangedBetween(t *testing.T) {
	s := storagetest.Open(t, storage.Options{RingBytes: 1})
	from := s.Seq()
	for i := range 50 {
		storagetest.Put(t, s, types.Key(fmt.Sprintf("k%02d", i%20)), fmt.Sprint(i))
	}
	to := s.Seq()
	storagetest.Put(t, s, "later", `1`)
	storagetest.Put(t, s, "k00", `"changed since"`)
	if _, ok := s.Recent(from, 1<<20); ok {
		t.Error("a ring of one byte reaches back 50 commits")
	}
	var got []types.Key
	after := types.Ref{}
	for {
		n := 0
		if err := s.ChangedBetween(t.Context(), from, to, after, func(rec *types.Record) bool {
			got, after = append(got, rec.Key), rec.Ref
			n++
			return n < 7
		}); err != nil {
			t.Fatal(err)
		}
		if n < 7 {
			break
		}
	}
	if len(got) != 19 || !slices.IsSorted(got) || slices.Contains(got, "later") || slices.Contains(got, "k00") {
		t.Errorf("changed: %q", got)
	}
}
