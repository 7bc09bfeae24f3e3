package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kvs/storage"
	"kvs/storage/storagetest"
	"kvs/types"
)

// told is an event as a subscriber of a test gets it.
type told struct {
	Kind    string
	Key     types.Key
	UUID    string
	Value   string
	Expires int64
	Purge   int64
	Place   Place
}

func (e told) String() string { return fmt.Sprintf("%s %s=%s at %v", e.Kind, e.Key, e.Value, e.Place) }

func encode(b []byte, e *Event) []byte {
	out, err := json.Marshal(told{e.Kind.String(), e.Record.Key, e.Record.UUID.String(), string(e.Record.Value), e.Record.ExpiresAt, e.Record.PurgeAt, e.Place})
	if err != nil {
		panic(err)
	}
	return append(b, out...)
}

// world is a hub over a store.
type world struct {
	*Hub
	t     *testing.T
	store *storage.Store
	stop  func() // ends Run; safe to call twice
	close func() // and the store
}

type worldOptions struct {
	storage.Options
	watch   Options
	adjust  func(*Hub)
	stalled bool // Run is not started
}

// open opens a store and a hub; both end with the test.
func open(t *testing.T, o worldOptions) *world {
	t.Helper()
	if o.watch.Encode == nil {
		o.watch.Encode = encode
	}
	h := New(o.watch)
	if o.adjust != nil {
		o.adjust(h)
	}
	o.Options.Hooks = append(o.Options.Hooks, h.Hook())
	w := &world{Hub: h, t: t, store: storagetest.Open(t, o.Options)}
	if err := h.Start(t.Context(), w.store); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	if o.stalled {
		done <- nil
	} else {
		go func() { done <- h.Run(ctx) }()
	}
	w.stop = func() {
		cancel()
		if err, running := <-done, true; running {
			done <- nil
			if err != nil {
				t.Errorf("run: %v", err)
			}
		}
	}
	w.close = func() {
		w.stop()
		if err := w.store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	t.Cleanup(w.stop)
	return w
}

func (w *world) put(key types.Key, value string) types.Record {
	w.t.Helper()
	return storagetest.Put(w.t, w.store, key, fmt.Sprintf("%q", value))
}

func (w *world) putFor(key types.Key, ttl time.Duration) types.Record {
	w.t.Helper()
	return storagetest.One(w.t, w.store, storage.Op{Kind: storage.OpPut, Ref: types.DataRef(key), Value: []byte(`1`), TTL: ttl}).Record
}

func (w *world) delete(key types.Key) types.Record {
	w.t.Helper()
	return storagetest.Delete(w.t, w.store, key)
}

// reader is a subscription, and what it was told.
type reader struct {
	*Sub
	t    *testing.T
	told []told
}

func (w *world) subscribe(o SubOptions) *reader {
	w.t.Helper()
	s, err := w.Subscribe(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return &reader{Sub: s, t: w.t}
}

func (w *world) resume(from Place) *reader {
	w.t.Helper()
	return w.subscribe(SubOptions{From: &from})
}

// read takes what there is now.
func (r *reader) read() ([]told, error) {
	var out []told
	for {
		b, err := r.Take(r.t.Context())
		if err != nil || len(b.Events) == 0 {
			return out, err
		}
		for _, data := range b.Events {
			var e told
			if err := json.Unmarshal(data, &e); err != nil {
				r.t.Fatalf("%v in %s", err, data)
			}
			out = append(out, e)
			r.told = append(r.told, e)
		}
	}
}

// patience bounds every wait for something that takes far less.
const patience = 30 * time.Second

// until reads until ok holds for all that was told.
func (r *reader) until(what string, ok func(all []told) bool) {
	r.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	for {
		ready := r.Ready()
		if _, err := r.read(); err != nil {
			r.t.Fatalf("%s: %v; told so far: %v", what, err, r.told)
		}
		if ok(r.told) {
			return
		}
		select {
		case <-ready:
		case <-end.C:
			r.t.Fatalf("never: %s; told so far: %v", what, r.told)
		}
	}
}

// untilKey reads until the last thing told is of a key.
func (r *reader) untilKey(key types.Key) []told {
	r.t.Helper()
	r.until("an event of "+string(key), func(all []told) bool { return len(all) > 0 && all[len(all)-1].Key == key })
	return r.told
}

// want compares what was told with "kind key" each.
func (r *reader) want(events ...string) {
	r.t.Helper()
	r.until(strings.Join(events, ", "), func(all []told) bool { return len(all) >= len(events) })
	var got []string
	for _, e := range r.told {
		got = append(got, e.Kind+" "+string(e.Key))
	}
	if !slices.Equal(got, events) {
		r.t.Errorf("told %q, want %q", got, events)
	}
}

// state is what a reader holds who believes all that it is told.
type state map[types.Key]string // key -> uuid of the value that is there

func (s state) believe(events []told) {
	for _, e := range events {
		if e.Kind == "put" {
			s[e.Key] = e.UUID
		} else {
			delete(s, e.Key)
		}
	}
}

// current is what is in the store.
func (w *world) current(prefix types.Key) state {
	w.t.Helper()
	s := state{}
	page, err := w.store.Scan(w.t.Context(), storage.ScanOptions{NS: types.NSData, Prefix: prefix, Limit: 1 << 30})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, rec := range page.Records {
		s[rec.Key] = rec.UUID.String()
	}
	return s
}

// inOrder fails where the versions of a key come in another order than they were
// written.
func inOrder(t *testing.T, events []told) {
	t.Helper()
	last := map[types.Key]told{}
	for _, e := range events {
		before, ok := last[e.Key]
		// Ids of versions are made in the order of time.
		if ok && (e.UUID < before.UUID || e.UUID == before.UUID && before.Kind == "expire" && e.Kind == "put") {
			t.Errorf("%v came before %v", before, e)
		}
		last[e.Key] = e
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
