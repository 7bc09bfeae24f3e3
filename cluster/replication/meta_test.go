package replication

import (
	"bytes"
	"testing"

	"kvs/types"
)

func FuzzMeta(f *testing.F) {
	f.Add(position{Cursor: 5, Window: 9, After: types.DataRef("a")}.encode())
	f.Add(marks{1, 2, 3}.encode())
	f.Add(progress{Started: 1, Band: 2, After: types.DataRef("b")}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePosition(b); err == nil && !bytes.Equal(p.encode(), b) {
			t.Error("position")
		}
		if m, err := decodeMarks(b); err == nil && !bytes.Equal(m.encode(), b) {
			t.Error("marks")
		}
		if p, err := decodeProgress(b); err == nil && !bytes.Equal(p.encode(), b) {
			t.Error("progress")
		}
	})
}
