package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"kvs/types"
)

var (
	testHeader = Header{Sender: types.NodeID{1, 2}, Horizon: 1_700_000_000_000}
	testRecord = types.Record{
		Ref:     types.DataRef("a/b"),
		Version: types.Version{Timestamp: 77, Origin: types.NodeID{9}, OriginJoined: 5, UUID: types.VersionID{4}},
		Value:   []byte("value"),
	}
	bucketsAsked = Buckets{testHeader, 7, 5<<48 + 1, []uint32{5, 6, 4000, 65535}}
)

// body is a sample of each kind, with its decoder, which also encodes again.
type body struct {
	name   string
	sample []byte
	want   any
	decode func(b []byte) (any, []byte, error)
}

func bodies() []body {
	push := Push{testHeader, [][]types.Record{{testRecord}, {testRecord, testRecord}}}
	pushAnswer := PushAnswer{testHeader, []Refused{{types.DataRef("k"), "clock skew"}, {types.DataRef("l"), ""}}}
	root := Root{testHeader, 1 << 60, [16]byte{1, 15: 2}, 1_000_000}
	rootAnswer := RootAnswer{Header: testHeader, Data: true, Clock: 99, Count: 7, Digest: [16]byte{3}, Children: Children{1, 15: 1 << 31}}
	equal := RootAnswer{Header: testHeader, Equal: true, Syncing: true, Clock: 99, Count: 7}
	nodes := Nodes{testHeader, 3, 3, []uint32{0, 1, 200, 4095}}
	nodesAnswer := NodesAnswer{testHeader, []Children{{1}, {2}}}
	bucketsAnswer := BucketsAnswer{testHeader, 4000<<48 + 9, []Entry{{5<<48 + 1, 2}, {6 << 48, 3}, {6<<48 + 9, 4}, {6<<48 + 9, 5}}}
	exchange := Exchange{testHeader, 1, []Item{{1, 2, 3}, {2, 0, 0}, {3, 4, 5}, {3, 6, 7}}}
	exchangeAnswer := ExchangeAnswer{testHeader, 4, []uint32{0, 2}, []types.Record{testRecord}}
	fetch := Fetch{testHeader, []types.Ref{types.DataRef("a"), {NS: types.NSJobs, Key: "\x00"}}}
	fetchAnswer := FetchAnswer{testHeader, []types.Record{testRecord}}
	stream := Stream{testHeader, 1, 2, types.Ref{}, 4 << 20}
	streamAnswer := StreamAnswer{testHeader, false, types.DataRef("z"), []types.Record{testRecord}}
	return []body{
		{"push", push.Append(nil), push, func(b []byte) (any, []byte, error) {
			m, err := DecodePush(b)
			return m, m.Append(nil), err
		}},
		{"push answer", pushAnswer.Append(nil), pushAnswer, func(b []byte) (any, []byte, error) {
			m, err := DecodePushAnswer(b)
			return m, m.Append(nil), err
		}},
		{"root", root.Append(nil), root, func(b []byte) (any, []byte, error) {
			m, err := DecodeRoot(b)
			return m, m.Append(nil), err
		}},
		{"root answer", rootAnswer.Append(nil), rootAnswer, func(b []byte) (any, []byte, error) {
			m, err := DecodeRootAnswer(b)
			return m, m.Append(nil), err
		}},
		{"equal", equal.Append(nil), equal, func(b []byte) (any, []byte, error) {
			m, err := DecodeRootAnswer(b)
			return m, m.Append(nil), err
		}},
		{"nodes", nodes.Append(nil), nodes, func(b []byte) (any, []byte, error) {
			m, err := DecodeNodes(b)
			return m, m.Append(nil), err
		}},
		{"nodes answer", nodesAnswer.Append(nil), nodesAnswer, func(b []byte) (any, []byte, error) {
			m, err := DecodeNodesAnswer(b, 2)
			return m, m.Append(nil), err
		}},
		{"buckets", bucketsAsked.Append(nil), bucketsAsked, func(b []byte) (any, []byte, error) {
			m, err := DecodeBuckets(b)
			return m, m.Append(nil), err
		}},
		{"buckets answer", bucketsAnswer.Append(nil, bucketsAsked.Buckets), bucketsAnswer, func(b []byte) (any, []byte, error) {
			m, err := DecodeBucketsAnswer(b, &bucketsAsked)
			return m, m.Append(nil, bucketsAsked.Buckets), err
		}},
		{"exchange", exchange.Append(nil), exchange, func(b []byte) (any, []byte, error) {
			m, err := DecodeExchange(b)
			return m, m.Append(nil), err
		}},
		{"exchange answer", exchangeAnswer.Append(nil), exchangeAnswer, func(b []byte) (any, []byte, error) {
			m, err := DecodeExchangeAnswer(b, 4)
			return m, m.Append(nil), err
		}},
		{"fetch", fetch.Append(nil), fetch, func(b []byte) (any, []byte, error) {
			m, err := DecodeFetch(b)
			return m, m.Append(nil), err
		}},
		{"fetch answer", fetchAnswer.Append(nil), fetchAnswer, func(b []byte) (any, []byte, error) {
			m, err := DecodeFetchAnswer(b)
			return m, m.Append(nil), err
		}},
		{"stream", stream.Append(nil), stream, func(b []byte) (any, []byte, error) {
			m, err := DecodeStream(b)
			return m, m.Append(nil), err
		}},
		{"stream answer", streamAnswer.Append(nil), streamAnswer, func(b []byte) (any, []byte, error) {
			m, err := DecodeStreamAnswer(b)
			return m, m.Append(nil), err
		}},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, b := range bodies() {
		got, again, err := b.decode(b.sample)
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
			continue
		}
		if !reflect.DeepEqual(got, b.want) || !bytes.Equal(again, b.sample) {
			t.Errorf("%s: decoded\n%+v, encoded\n%+v", b.name, got, b.want)
		}
	}
}

// Every body is refused when cut short, longer, of another version or kind.
func TestDamageIsRefused(t *testing.T) {
	for _, b := range bodies() {
		for n := range b.sample {
			if _, _, err := b.decode(b.sample[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s cut to %d bytes: error %v", b.name, n, err)
			}
		}
		for name, damaged := range map[string][]byte{
			"a byte more":     append(bytes.Clone(b.sample), 0),
			"another version": append([]byte{Version + 1}, b.sample[1:]...),
			"another kind":    append([]byte{Version, b.sample[1] ^ 32}, b.sample[2:]...),
		} {
			if _, _, err := b.decode(damaged); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s, %s: error %v", b.name, name, err)
			}
		}
	}
}

func TestHorizonAnswersEveryRequest(t *testing.T) {
	refusal := AppendHorizon(nil, testHeader)
	for _, b := range bodies() {
		_, _, err := b.decode(refusal)
		var e *HorizonError
		answer := b.sample[1]%2 == 0
		if errors.As(err, &e) != answer || answer && e.Horizon != testHeader.Horizon {
			t.Errorf("%s: error %v", b.name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for i, b := range bodies() {
		f.Add(i, b.sample)
	}
	f.Add(0, AppendHorizon(nil, testHeader))
	all := bodies()
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		if i < 0 || i >= len(all) {
			return
		}
		// What is accepted is what the encoder makes.
		if _, again, err := all[i].decode(b); err == nil && !bytes.Equal(again, b) {
			t.Errorf("%s: another spelling of %x is accepted: %x", all[i].name, again, b)
		}
	})
}
