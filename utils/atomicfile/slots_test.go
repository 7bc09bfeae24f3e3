package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T, path string) *Slots {
	t.Helper()
	s, err := OpenSlots(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func expect(t *testing.T, s *Slots, want string, stored bool) {
	t.Helper()
	if got, ok := s.Load(); ok != stored || string(got) != want {
		t.Fatalf("Load gives %q, %v; want %q, %v", got, ok, want, stored)
	}
}

func TestSlotsKeepTheLastValue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slots")
	s := open(t, path)
	expect(t, s, "", false)
	expect(t, open(t, path), "", false)
	for i := range 5 {
		want := fmt.Sprintf("value %d", i)
		if err := s.Store([]byte(want)); err != nil {
			t.Fatal(err)
		}
		expect(t, s, want, true)
		expect(t, open(t, path), want, true)
	}
	for _, want := range []string{"", string(bytes.Repeat([]byte{0xff}, MaxPayload))} {
		if err := s.Store([]byte(want)); err != nil {
			t.Fatal(err)
		}
		expect(t, open(t, path), want, true)
	}
	if err := s.Store(make([]byte, MaxPayload+1)); err == nil {
		t.Error("a payload that is too long was stored")
	}
	if info, err := os.Stat(path); err != nil || info.Size() != slotsSize || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
}

// A crash tears a write at any byte: what is found again is the old value or
// the new one, and the file can be written on.
func TestTornWrites(t *testing.T) {
	for stored := range 4 {
		dir := t.TempDir()
		s := open(t, filepath.Join(dir, "slots"))
		old, had := "", false
		for i := range stored {
			old, had = fmt.Sprintf("value %d", i), true
			if err := s.Store([]byte(old)); err != nil {
				t.Fatal(err)
			}
		}
		before, err := os.ReadFile(s.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Store([]byte("the new one")); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(s.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		slot := s.newest * slotOffset
		for cut := range slotSize + 1 {
			torn := bytes.Clone(before)
			copy(torn[slot:], after[slot:slot+cut])
			path := filepath.Join(dir, "torn")
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := OpenSlots(path)
			if err != nil {
				t.Fatalf("%d stored, cut at %d: %v", stored, cut, err)
			}
			got, ok := s.Load()
			isOld := string(got) == old && ok == had
			isNew := string(got) == "the new one" && ok
			if !isOld && !isNew || cut == slotSize && !isNew {
				t.Fatalf("%d stored, cut at %d: Load gives %q, %v", stored, cut, got, ok)
			}
			// The checksum's last bytes may be equal by chance, so what is
			// checked from here on is only that it goes on.
			if err := s.Store([]byte("later")); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := OpenSlots(path)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, again, "later", true)
			again.Close()
		}
	}
}

func TestDamagedSlotsAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slots")
	s := open(t, path)
	for range 2 {
		if err := s.Store([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"empty":      func(b []byte) []byte { return nil },
		"short":      func(b []byte) []byte { return b[:slotsSize-1] },
		"long":       func(b []byte) []byte { return append(b, 0) },
		"both slots": func(b []byte) []byte { b[3] ^= 1; b[slotOffset+9] ^= 1; return b },
	} {
		if err := os.WriteFile(path, damage(bytes.Clone(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSlots(path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	path := filepath.Join(f.TempDir(), "slots")
	s, err := OpenSlots(path)
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	if err := s.Store([]byte("seed")); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:slotSize], b[slotOffset:][:slotSize])
	f.Add([]byte{1}, []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		b := make([]byte, slotsSize)
		copy(b[:slotSize], first)
		copy(b[slotOffset:][:slotSize], second)
		var s Slots
		if err := s.parse(b); err == nil && len(s.payload) > MaxPayload {
			t.Fatal("a payload longer than a slot")
		}
	})
}
