package tamperlog

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// victim is a node with a log of several blocks, and a witness that has a
// checkpoint of every other one. The last block tells of a refused attempt only,
// so that the store's records do not show that it is missing.
func victim(t *testing.T) (n *node, witnessed []Checkpoint) {
	t.Helper()
	n = openNode(t, "")
	w := openNode(t, "")
	for i := range 12 {
		key := types.Key(fmt.Sprintf("k%d", i))
		var ops []storage.Op
		for range 1 + i%3 {
			ops = append(ops, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(key), Value: []byte(`1`)})
		}
		if _, err := n.store.Write(t.Context(), ops, true); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			n.witnessedBy(w)
		}
	}
	n.log.Refused(storage.Actor{Subject: "eve"}, "k", "forbidden")
	n.flush()
	n.witnessedBy(w)
	witnessed = w.list(n.id())
	r := n.sound(VerifyOptions{Witnessed: witnessed})
	if r.Witnessed != 7 || r.Blocks != 13 || r.WitnessedTo != r.Last {
		t.Fatalf("the sound log: %+v", r)
	}
	return n, witnessed
}

// A flipped bit anywhere is found, and nothing else is blamed.
func TestFlippedBits(t *testing.T) {
	n, witnessed := victim(t)
	r := rand.New(rand.NewPCG(5, 6))
	blocks := n.blocks()
	for i, b := range blocks {
		for range 8 {
			at, bit := r.IntN(len(b.value)), r.IntN(8)
			bad := bytes.Clone(b.value)
			bad[at] ^= 1 << bit
			n.attack(func(tx *storage.HookTx) { tx.Set(b.key, bad) })
			got := n.verify(VerifyOptions{})
			whole := b.decoded(t)
			first, last := whole.First, whole.Last()
			if i == len(blocks)-1 {
				last = first // how many there were is not known
			}
			want := []Kind{KindAltered}
			if len(got.Problems) == 0 || got.Problems[0].Kind != KindAltered || got.Problems[0].First != first || got.Problems[0].Last != last || !reflect.DeepEqual(kinds(got.Problems), want) {
				t.Fatalf("bit %d of byte %d of block %d: %+v", bit, at, first, got.Problems)
			}
			if got.Blocks != uint64(len(blocks)-1) {
				t.Fatalf("block %d: only %d were read", first, got.Blocks)
			}
			// A hash that was witnessed is still vouched for by the block behind it.
			agree, unchecked := uint64(7), uint64(0)
			if i == len(blocks)-1 {
				agree, unchecked = 6, 1
			}
			if w := n.verify(VerifyOptions{Witnessed: witnessed}); w.Witnessed != agree || w.Unchecked != unchecked || !reflect.DeepEqual(kinds(w.Problems), want) {
				t.Fatalf("block %d with checkpoints: %d agree, %d unchecked, %+v", first, w.Witnessed, w.Unchecked, w.Problems)
			}
		}
		n.attack(func(tx *storage.HookTx) { tx.Set(b.key, b.value) })
	}
	n.sound(VerifyOptions{Witnessed: witnessed})
}

// Every attack is made on the same log, which is put back in between.
func TestAttacks(t *testing.T) {
	n, witnessed := victim(t)
	good := n.blocks()
	decoded := make([]Block, len(good))
	for i := range good {
		decoded[i] = good[i].decoded(t)
	}
	copyOf := func(from int) []Block {
		out := slices.Clone(decoded[from:])
		for i := range out {
			out[i].Entries = slices.Clone(out[i].Entries)
		}
		return out
	}
	clean := func(from int) []Block { // hides who did it
		out := copyOf(from)
		out[0].Entries[0].By.Subject = "nobody"
		return out
	}
	other := openNode(t, "")
	for i := range 30 {
		storagetest.Put(t, other.store, types.Key(fmt.Sprintf("k%d", i)), `1`)
	}
	first := func(i int) uint64 { return decoded[i].First }

	for _, a := range []struct {
		name    string
		blocks  []rawBlock
		alone   []Problem // found without checkpoints
		witness []Problem // found with them
	}{
		{"a block in the middle is deleted", slices.Delete(slices.Clone(good), 5, 6),
			[]Problem{{Kind: KindMissing, First: first(5), Last: first(6) - 1}},
			[]Problem{{Kind: KindMissing, First: first(5), Last: first(6) - 1}}},
		{"several are", slices.Delete(slices.Clone(good), 4, 9),
			[]Problem{{Kind: KindMissing, First: first(4), Last: first(9) - 1}},
			[]Problem{{Kind: KindMissing, First: first(4), Last: first(9) - 1}}},
		{"the first block is deleted", good[1:],
			[]Problem{{Kind: KindMissing, First: 1, Last: first(1) - 1}},
			[]Problem{{Kind: KindMissing, First: 1, Last: first(1) - 1}}},
		{"two blocks are swapped", swap(good, 3, 6),
			[]Problem{{Kind: KindMoved, First: first(3), Last: first(4) - 1}, {Kind: KindMoved, First: first(6), Last: first(7) - 1}},
			[]Problem{{Kind: KindMoved, First: first(3), Last: first(4) - 1}, {Kind: KindMoved, First: first(6), Last: first(7) - 1}}},
		{"an entry is altered and its block sealed again", splice(good, 5, rechain(clean(5)[:1], decoded[5].Prev)),
			[]Problem{{Kind: KindUnlinked, First: first(6), Last: first(7) - 1}},
			[]Problem{{Kind: KindUnlinked, First: first(6), Last: first(7) - 1}}},
		{"a forged block with a wrong predecessor replaces one", splice(good, 5, rechain(clean(5)[:1], Hash{1})),
			[]Problem{{Kind: KindUnlinked, First: first(5), Last: first(6) - 1}, {Kind: KindUnlinked, First: first(6), Last: first(7) - 1}},
			[]Problem{{Kind: KindUnlinked, First: first(5), Last: first(6) - 1}, {Kind: KindUnlinked, First: first(6), Last: first(7) - 1}}},
		{"a forged block is put in between", splice(good, 6, append(rechain([]Block{{First: first(5) + 1, Previous: 1, Seq: decoded[5].Seq, Entries: decoded[5].Entries}}, decoded[5].Prev), good[6])),
			[]Problem{{Kind: KindInserted, First: first(5) + 1, Last: first(5) + uint64(len(decoded[5].Entries))}},
			[]Problem{{Kind: KindInserted, First: first(5) + 1, Last: first(5) + uint64(len(decoded[5].Entries))}}},
		{"rubbish is put in between", splice(good, 6, []rawBlock{{blockKey(first(5) + 1), []byte("rubbish")}, good[6]}),
			[]Problem{{Kind: KindInserted, First: first(5) + 1, Last: first(5) + 1}},
			[]Problem{{Kind: KindInserted, First: first(5) + 1, Last: first(5) + 1}}},
		{"a key is put there that is none", splice(good, 6, []rawBlock{{append(blockKey(first(5)), 7), good[5].value}, good[6]}),
			[]Problem{{Kind: KindInserted, First: first(6), Last: first(6)}},
			[]Problem{{Kind: KindInserted, First: first(6), Last: first(6)}}},
		{"a forged block is put at the end", append(slices.Clone(good), rechain([]Block{{First: decoded[12].Last() + 1, Previous: 1, Seq: 1 << 40, Entries: decoded[5].Entries}}, Hash{1})...),
			[]Problem{{Kind: KindUnlinked, First: decoded[12].Last() + 1, Last: decoded[12].Last() + uint64(len(decoded[5].Entries))}},
			[]Problem{{Kind: KindUnlinked, First: decoded[12].Last() + 1, Last: decoded[12].Last() + uint64(len(decoded[5].Entries))}}},
		{"a chain is begun in the middle", splice(good, 5, rechain(begun(copyOf(5)), genesis(n.id(), first(5)))),
			[]Problem{{Kind: KindNewChain, First: first(5), Last: first(5)}},
			[]Problem{{Kind: KindNewChain, First: first(5), Last: first(5)}, {Kind: KindRewritten, First: decoded[4].Last() + 1, Last: decoded[12].Last()}}},
		{"the sequence runs backwards", append(slices.Clone(good[:12]), rechain(seq(copyOf(12), 1), decoded[11].Hash)...),
			[]Problem{{Kind: KindSequence, First: first(12), Last: first(12)}, {Kind: KindUnlogged, First: first(12) + 1, Last: first(12) + 1}},
			[]Problem{{Kind: KindSequence, First: first(12), Last: first(12)}, {Kind: KindRewritten, First: decoded[10].Last() + 1, Last: first(12)}, {Kind: KindUnlogged, First: first(12) + 1, Last: first(12) + 1}}},
		{"the end is cut off, records show it", good[:9],
			[]Problem{{Kind: KindUnlogged, First: first(9), Last: first(9)}},
			[]Problem{{Kind: KindTruncated, First: first(9), Last: decoded[12].Last()}, {Kind: KindUnlogged, First: first(9), Last: first(9)}}},
		{"the end is cut off, no record shows it", good[:12],
			nil,
			[]Problem{{Kind: KindTruncated, First: first(12), Last: decoded[12].Last()}}},
		{"the end is cut off far back, and what is left is spoilt", append(slices.Clone(good[:5]), rawBlock{blockKey(first(5)), []byte("x")}),
			[]Problem{{Kind: KindAltered, First: first(5), Last: first(5)}, {Kind: KindUnlogged, First: first(5) + 1, Last: first(5) + 1}},
			[]Problem{{Kind: KindAltered, First: first(5), Last: first(5)}, {Kind: KindUnlogged, First: first(5) + 1, Last: first(5) + 1}}},
		{"everything is deleted", nil,
			[]Problem{{Kind: KindUnlogged, First: 1, Last: 1}},
			[]Problem{{Kind: KindTruncated, First: 1, Last: decoded[12].Last()}, {Kind: KindUnlogged, First: 1, Last: 1}}},
		{"the tail is rewritten consistently", splice(good, 7, rechain(clean(7), decoded[6].Hash)),
			nil,
			[]Problem{{Kind: KindRewritten, First: decoded[6].Last() + 1, Last: decoded[12].Last()}}},
		{"the tail is rewritten and longer", append(splice(good, 7, rechain(clean(7), decoded[6].Hash)), longer(t, decoded, clean(7), 7)...),
			nil,
			[]Problem{{Kind: KindRewritten, First: decoded[6].Last() + 1, Last: decoded[12].Last()}}},
		{"the whole log is replaced by another valid one", rechain(clean(0), genesis(n.id(), 1)),
			nil,
			[]Problem{{Kind: KindRewritten, First: 1, Last: decoded[12].Last()}}},
		{"it is replaced by that of another node", other.blocks(),
			[]Problem{{Kind: KindUnlinked, First: 1, Last: 2}},
			[]Problem{{Kind: KindUnlinked, First: 1, Last: 2}, {Kind: KindRewritten, First: 1, Last: decoded[12].Last()}}},
	} {
		t.Run(a.name, func(t *testing.T) {
			n.replace(a.blocks)
			for _, c := range []struct {
				what string
				o    VerifyOptions
				want []Problem
			}{{"alone", VerifyOptions{}, a.alone}, {"with checkpoints", VerifyOptions{Witnessed: witnessed}, a.witness}} {
				got := n.verify(c.o).Problems
				for i := range got {
					if got[i].Text == "" {
						t.Errorf("a problem without a text: %+v", got[i])
					}
				}
				bare := slices.Clone(got)
				for i := range bare {
					bare[i].Text = ""
				}
				if !slices.Equal(bare, c.want) {
					t.Errorf("%s found\n%+v, want\n%+v", c.what, got, c.want)
				}
			}
			n.replace(good)
			n.sound(VerifyOptions{Witnessed: witnessed})
		})
	}
}

func swap(blocks []rawBlock, i, j int) []rawBlock {
	out := slices.Clone(blocks)
	out[i].value, out[j].value = out[j].value, out[i].value
	return out
}

// splice gives blocks with those from i on replaced by with, as far as it goes.
func splice(blocks []rawBlock, i int, with []rawBlock) []rawBlock {
	out := slices.Clone(blocks[:i])
	out = append(out, with...)
	// What with put in between moves the rest back.
	for _, b := range blocks[i:] {
		if !slices.ContainsFunc(out, func(o rawBlock) bool { return bytes.Equal(o.key, b.key) }) {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b rawBlock) int { return bytes.Compare(a.key, b.key) })
	return out
}

func begun(blocks []Block) []Block {
	blocks[0].Previous = 0
	return blocks
}

func seq(blocks []Block, seq uint64) []Block {
	blocks[0].Seq = seq
	return blocks
}

// longer gives a further block behind the rewritten tail.
func longer(t *testing.T, decoded, tail []Block, from int) []rawBlock {
	t.Helper()
	written := rechain(tail, decoded[from-1].Hash)
	last := written[len(written)-1].decoded(t)
	return rechain([]Block{{First: last.Last() + 1, Previous: uint64(len(last.Entries)), Seq: last.Seq, Time: last.Time,
		Entries: []Entry{{Action: ActionGap, Count: 1}}}}, last.Hash)
}

// A tail that was cut off before a start looks like a time without the log, and
// a witness knows better.
func TestCutAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that starts take no time
		n, witnessed := victim(t)
		good := n.blocks()
		n.replace(good[:9])
		n = n.reopen()
		for i := range 20 {
			storagetest.Put(t, n.store, types.Key(fmt.Sprintf("new%d", i)), `1`)
		}
		r := n.sound(VerifyOptions{})
		if len(r.Gaps) != 1 || r.Gaps[0].Records != 3 {
			t.Errorf("gaps %+v", r.Gaps)
		}
		r = n.verify(VerifyOptions{Witnessed: witnessed})
		if !reflect.DeepEqual(kinds(r.Problems), []Kind{KindRewritten}) || r.Problems[0].First != good[9].decoded(t).First {
			t.Errorf("with checkpoints: %+v", r.Problems)
		}
	})
}

// Checkpoints that prove nothing are named and not used.
func TestUselessCheckpoints(t *testing.T) {
	n, witnessed := victim(t)
	key, err := LoadPublicKey(n.dir)
	if err != nil || key != witnessed[0].PublicKey {
		t.Fatalf("public key %v, %v; that of the checkpoints is %v", key, err, witnessed[0].PublicKey)
	}
	_, strange, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	changed, of, forged := witnessed[1], witnessed[2], witnessed[3]
	changed.Head[0] ^= 1
	of.Node[0] ^= 1
	of.sign(strange)
	forged.Head[0] ^= 1
	forged.sign(strange)
	r := n.verify(VerifyOptions{PublicKey: key, Witnessed: append([]Checkpoint{changed, of, forged, changed, of, forged}, append(witnessed, witnessed...)...)})
	bare := slices.Clone(r.Problems)
	for i := range bare {
		bare[i].Text = ""
	}
	if want := []Problem{{Kind: KindWitness, First: of.N, Last: of.N}, {Kind: KindWitness, First: changed.N, Last: changed.N},
		{Kind: KindWitness, First: forged.N, Last: forged.N}}; !slices.Equal(bare, want) || r.Witnessed != 7 {
		t.Errorf("%d agree, %+v", r.Witnessed, r.Problems)
	}
	// Without the node's own key the forged one is believed.
	r = n.verify(VerifyOptions{Witnessed: append([]Checkpoint{forged}, witnessed...)})
	if !reflect.DeepEqual(kinds(r.Problems), []Kind{KindRewritten}) || r.Problems[0].Last != forged.N {
		t.Errorf("%+v", r.Problems)
	}
}

// A log in which everything is wrong is read to its end, with a bounded report.
func TestReportIsBounded(t *testing.T) {
	n := openNode(t, "")
	n.attack(func(tx *storage.HookTx) {
		for i := range uint64(maxFindings + 500) {
			tx.Set(blockKey(2*i+1), []byte("rubbish"))
		}
	})
	r := n.verify(VerifyOptions{})
	if len(r.Problems) != maxFindings || r.Unlisted != 500 {
		t.Errorf("%d problems, %d not listed", len(r.Problems), r.Unlisted)
	}
}

func TestProgress(t *testing.T) {
	n := openNode(t, "")
	n.attack(func(tx *storage.HookTx) {
		var m memory
		for range 2*progressEvery + 1 {
			n.log.stage(&m, []storage.Staged{{New: foreign("k", 1000, false), Merged: true}})
			n.log.Committed(0, nil)
		}
		for _, b := range m.blocks {
			tx.Set(b.key, b.value)
		}
	})
	var seen []uint64
	r := n.sound(VerifyOptions{Progress: func(n uint64) { seen = append(seen, n) }})
	if r.Blocks != 2*progressEvery+1 || len(seen) != 2 || seen[1] <= seen[0] {
		t.Errorf("%d blocks, progress %v", r.Blocks, seen)
	}
}

func TestEntriesFilter(t *testing.T) {
	n := openNode(t, "")
	put := func(ref types.Ref, who string) Entry {
		storagetest.One(t, n.store, storage.Op{Kind: storage.OpPut, Ref: ref, Value: []byte("1"), By: &storage.Actor{Subject: who}})
		list := n.entries(Filter{})
		return list[len(list)-1]
	}
	a := put(types.DataRef("a/1"), "ann")
	b := put(types.DataRef("b/1"), "bob")
	u := put(types.Ref{NS: types.NSAuth, Key: "a/user"}, "ann")
	storagetest.Delete(t, n.store, "a/1")
	del := n.entries(Filter{Action: ActionDelete})
	if len(del) != 1 || del[0].Before != a.After {
		t.Fatalf("deletes %+v", del)
	}
	for name, c := range map[string]struct {
		f    Filter
		want []Entry
	}{
		"who":               {Filter{Who: "ann"}, []Entry{a, u}},
		"prefix":            {Filter{KeyPrefix: "a/", Action: ActionPut}, []Entry{a, u}},
		"namespace":         {Filter{NS: types.NSAuth}, []Entry{u}},
		"after":             {Filter{After: b.N}, []Entry{u, del[0]}},
		"all of it":         {Filter{Who: "bob", Action: ActionPut, NS: types.NSData, KeyPrefix: "b"}, []Entry{b}},
		"nothing":           {Filter{Who: "carol"}, []Entry{}},
		"behind the end":    {Filter{After: 1 << 60}, []Entry{}},
		"since the future":  {Filter{Since: n.store.Now().AddDate(1, 0, 0)}, []Entry{}},
		"until the past":    {Filter{Until: n.store.Now().AddDate(-1, 0, 0)}, []Entry{}},
		"since the past":    {Filter{Since: n.store.Now().AddDate(-1, 0, 0), Who: "bob"}, []Entry{b}},
		"until that moment": {Filter{Until: n.store.Now().AddDate(1, 0, 0), Who: "bob"}, []Entry{b}},
	} {
		if got := n.entries(c.f); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	page, next, err := Entries(t.Context(), n.store, Filter{Limit: 2, Action: ActionPut})
	if err != nil || len(page) != 2 || next != b.N {
		t.Errorf("first page %+v, next %d, %v", page, next, err)
	}
	page, next, err = Entries(t.Context(), n.store, Filter{Limit: 2, Action: ActionPut, After: next})
	if err != nil || len(page) != 1 || page[0] != u || next != 0 {
		t.Errorf("second page %+v, next %d, %v", page, next, err)
	}

	// Damage is shown whatever is asked for, and the rest is.
	blocks := n.blocks()
	bad := bytes.Clone(blocks[1].value)
	bad[len(bad)-40] ^= 1
	n.attack(func(tx *storage.HookTx) { tx.Set(blocks[1].key, bad) })
	got := n.entries(Filter{Who: "carol"})
	if len(got) != 1 || got[0].N != b.N || got[0].Action != ActionDamaged || !strings.Contains(got[0].Detail, "kvs audit verify") {
		t.Errorf("%+v", got)
	}
	if got := n.entries(Filter{}); len(got) != 5 {
		t.Errorf("%+v", got)
	}
}
