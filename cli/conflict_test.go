package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kvs/storage"
	"kvs/types"
)

func TestConflict(t *testing.T) {
	base := t.TempDir()
	dirs := [2]string{filepath.Join(base, "one"), filepath.Join(base, "two")}
	r := run(t, t.Context(), nil, "conflict", dirs[0], dirs[1], "--key", "a/b")
	if r.code != exitOK || !strings.Contains(r.stdout, `will agree on "written in directory 1"`) {
		t.Fatalf("%+v", r)
	}
	var records [2]types.Record
	for i, dir := range dirs {
		start := time.Now()
		s, err := storage.Open(storage.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("opening took %v", took)
		}
		records[i], err = s.Get(types.DataRef("a/b"))
		if err != nil || records[i].Origin != s.Identity().UUID || records[i].OriginJoined != s.Identity().Joined {
			t.Errorf("%+v, %v", records[i], err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	a, b := records[0], records[1]
	if a.Timestamp != b.Timestamp || a.OriginJoined >= b.OriginJoined || a.Origin == b.Origin {
		t.Errorf("%+v\n%+v", a, b)
	}
	for _, m := range []types.Merged{types.Merge(a, b), types.Merge(b, a)} {
		if m.Winner.UUID != a.UUID || !m.Conflict {
			t.Errorf("%+v", m)
		}
	}
	// Nothing is ever overwritten.
	if r := run(t, t.Context(), nil, "conflict", dirs[0], filepath.Join(base, "three")); r.code != exitFailed || !strings.Contains(r.stderr, "not empty") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(base, "three")); err == nil {
		t.Error("a directory was made for nothing")
	}
	if r := run(t, t.Context(), nil, "conflict", base+"/new", base+"/./new"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}
