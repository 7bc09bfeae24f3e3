package membership

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"kvs/types"
	"kvs/utils/faultnet"
)

func TestMetaRoundTripAndSize(t *testing.T) {
	for _, m := range []meta{
		{Identity: Identity{UUID: idOf("a"), NodeID: "a", Joined: 0, Address: "h:1"}, mode: types.ModeNormal},
		{Identity: Identity{UUID: idOf("b"), NodeID: strings.Repeat("ü", maxNodeID/2), Joined: 1 << 62, Address: strings.Repeat("x", maxAddress)},
			instance: 1<<64 - 1, mode: types.ModeSyncing, leaving: true, protocol: 1<<64 - 1},
	} {
		b := m.encode()
		if len(b) > memberlist.MetaMaxSize {
			t.Errorf("%d bytes, memberlist takes %d", len(b), memberlist.MetaMaxSize)
		}
		got, err := decodeMeta(b)
		if err != nil || got != m {
			t.Errorf("%+v came back as %+v, %v", m, got, err)
		}
		for i := range b {
			if _, err := decodeMeta(b[:i]); err == nil {
				t.Errorf("%d of %d bytes were taken", i, len(b))
			}
		}
		if _, err := decodeMeta(append(b, 0)); err == nil {
			t.Error("a byte too many was taken")
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add(meta{Identity: Identity{UUID: idOf("a"), NodeID: "a", Joined: 5, Address: "h:1"}, mode: types.ModeReadOnly}.encode())
	f.Add([]byte{})
	f.Add([]byte{metaFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := decodeMeta(m.encode())
		if err != nil || again != m {
			t.Fatalf("%+v came back as %+v, %v", m, again, err)
		}
	})
}

func FuzzDecodeHello(f *testing.F) {
	h := hello{UUIDText: idOf("a").String(), NodeID: "a", Address: "h:1", Instance: "1", Card: []byte("card"), Nonce: []byte("nonce")}
	b, _ := json.Marshal(h)
	f.Add(b)
	f.Add([]byte(`{"uuid":"","node_id":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		if h.UUID.IsZero() || h.NodeID == "" || len(h.NodeID) > maxNodeID || h.Address == "" || len(h.Address) > maxAddress {
			t.Fatalf("taken: %+v", h)
		}
	})
}

// Whatever the clocks, of two processes exactly one is the later.
func TestLaterIsAntisymmetric(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 10_000 {
		draw := func(instance string) hello {
			return hello{Uptime: rng.Int64N(20_000), Started: rng.Int64N(3), Instance: instance}
		}
		a, b := draw("a"), draw("b")
		if later(a, b) == later(b, a) {
			t.Fatalf("seed %d: %+v and %+v", seed, a, b)
		}
	}
	old, young := hello{Uptime: 60_000, Started: 9}, hello{Uptime: 1_000, Started: 1}
	if later(old, young) {
		t.Error("a wrong clock makes the older process the later one")
	}
}

func TestAnswersProveTheSecret(t *testing.T) {
	ours := newAnswers([][]byte{[]byte("new"), []byte("old")})
	rotating := newAnswers([][]byte{[]byte("old")})
	stranger := newAnswers([][]byte{[]byte("other")})
	nonce, body := []byte("nonce"), []byte("body")
	for name, c := range map[string]struct {
		sealed, nonce []byte
		ok            bool
	}{
		"same key":      {ours.seal(nonce, body), nonce, true},
		"previous key":  {rotating.seal(nonce, body), nonce, true},
		"another key":   {stranger.seal(nonce, body), nonce, false},
		"another nonce": {ours.seal(nonce, body), []byte("nonc"), false},
		"too short":     {[]byte("x"), nonce, false},
		"altered":       {append(ours.seal(nonce, body), 'x'), nonce, false},
	} {
		got, ok := ours.open(c.nonce, c.sealed)
		if ok != c.ok || ok && string(got) != "body" {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
}

func TestPace(t *testing.T) {
	for _, c := range []struct {
		urgent   bool
		attempts int
		age      time.Duration
		least    time.Duration
		most     time.Duration
	}{
		{true, 0, 0, quickMin / 2, quickMin},
		{true, 1, time.Second, quickMin, 2 * quickMin},
		{true, 9, time.Minute, quickMax / 2, quickMax},
		{true, 1 << 30, quickFor, quickMax / 2, quickMax},
		{true, 9, quickFor + 1, time.Minute, 2 * time.Minute},
		{false, 0, 0, time.Minute, 2 * time.Minute},
	} {
		for _, jitter := range []float64{0, 0.5, 0.999} {
			if d := pace(c.urgent, c.attempts, c.age, time.Minute, 2*time.Minute, jitter); d < c.least || d > c.most {
				t.Errorf("attempt %d at age %v: %v, want %v to %v", c.attempts, c.age, d, c.least, c.most)
			}
		}
	}
}

func TestMedian(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		in   []time.Duration
		want time.Duration
	}{
		{[]time.Duration{7 * s}, 7 * s},
		{[]time.Duration{0, -9 * s}, 0},
		{[]time.Duration{-9 * s, -8 * s}, -8 * s},
		{[]time.Duration{9 * s, 0, 8 * s}, 8 * s},
	} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.in, got, c.want)
		}
	}
}

func TestGossipPathWantsAnUpgrade(t *testing.T) {
	n := run(t, faultnet.Memory(), config{name: "a"})
	for _, r := range []*http.Request{
		httptest.NewRequest(http.MethodGet, gossipPath, nil),
		httptest.NewRequest(http.MethodPost, gossipPath, nil),
	} {
		w := httptest.NewRecorder()
		n.Handlers()[gossipPath].ServeHTTP(w, r)
		if w.Code != http.StatusUpgradeRequired {
			t.Errorf("%s: %d", r.Method, w.Code)
		}
	}
}

func TestNewChecksItsOptions(t *testing.T) {
	good := Options{Identity: Identity{UUID: idOf("a"), NodeID: "a", Address: "h:1"}, GossipKeys: [][]byte{make([]byte, 32)}}
	for name, spoil := range map[string]func(*Options){
		"no uuid":            func(o *Options) { o.UUID = types.NodeID{} },
		"no node_id":         func(o *Options) { o.NodeID = "" },
		"long node_id":       func(o *Options) { o.NodeID = strings.Repeat("x", maxNodeID+1) },
		"long address":       func(o *Options) { o.Address = strings.Repeat("x", maxAddress+1) },
		"no key":             func(o *Options) { o.GossipKeys = nil },
		"intervals reversed": func(o *Options) { o.IntervalMin, o.IntervalMax = 2, 1 },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}
