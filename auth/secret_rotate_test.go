package auth

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func load(t testing.TB, path string) Secrets {
	t.Helper()
	s, err := LoadSecret(SecretOptions{File: path})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRotationInThreeSteps(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o640, 0o400} {
		path := write(t, string(secretA)+"\n", mode)
		current := secretA
		for range 3 { // rotation after rotation
			if err := RotateAdd(path); err != nil {
				t.Fatal(err)
			}
			s := load(t, path)
			if s.Current != current || len(s.Previous) != 1 || s.Previous[0] == current || len(s.Previous[0]) < 64 {
				t.Fatalf("after adding there are %d accepted ones", len(s.Previous))
			}
			fresh := s.Previous[0]
			if err := RotateSwitch(path); err != nil {
				t.Fatal(err)
			}
			if s = load(t, path); s.Current != fresh || !slices.Equal(s.Previous, []Secret{current}) {
				t.Fatal("after switching the fresh one is not the current one, or the other is not accepted")
			}
			if err := RotateFinish(path); err != nil {
				t.Fatal(err)
			}
			if s = load(t, path); s.Current != fresh || len(s.Previous) != 0 {
				t.Fatal("after finishing the fresh one is not alone")
			}
			current = fresh
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
			t.Errorf("beside the file there are %v, %v", left, err)
		}
	}
}

// A step out of order changes nothing and says what to do.
func TestRotationRefuses(t *testing.T) {
	const older, newer = "kvs-20250102T030405Z-" + secretB, "kvs-20250102T030406Z-" + secretC
	for _, c := range []struct {
		name  string
		step  func(string) error
		lines []Secret
		mode  fs.FileMode
		want  string
	}{
		{"add twice", RotateAdd, []Secret{secretA, newer}, 0o600, "finish"},
		{"add after a switch", RotateAdd, []Secret{newer, secretA}, 0o600, "finish"},
		{"switch without one added", RotateSwitch, []Secret{secretA}, 0o600, "add one first"},
		{"switch twice", RotateSwitch, []Secret{newer, secretA}, 0o600, "finish"},
		{"switch twice, both dated", RotateSwitch, []Secret{newer, older}, 0o600, "finish"},
		{"finish nothing", RotateFinish, []Secret{newer}, 0o600, "no rotation"},
		{"finish before the switch", RotateFinish, []Secret{secretA, newer}, 0o600, "switch to it first"},
		{"finish before the switch, both dated", RotateFinish, []Secret{older, newer}, 0o600, "switch to it first"},
		{"readable by all", RotateAdd, []Secret{secretA}, 0o644, "chmod"},
		{"a short line", RotateSwitch, []Secret{secretA, "short"}, 0o600, "secret 2"},
		{"no room", RotateAdd, []Secret{Secret(strings.Repeat("x", maxSecretFile-50))}, 0o600, "shorter"},
		{"empty", RotateAdd, nil, 0o600, "0 bytes"},
	} {
		path := write(t, string(formatSecrets(c.lines)), c.mode)
		err := c.step(path)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, s := range c.lines {
			if strings.Contains(fmt.Sprint(err), string(s)) && len(s) > 8 {
				t.Errorf("%s: the error shows a secret", c.name)
			}
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(formatSecrets(c.lines)) {
			t.Errorf("%s: the file was changed, %v", c.name, err)
		}
	}
	for name, step := range map[string]func(string) error{"add": RotateAdd, "switch": RotateSwitch, "finish": RotateFinish} {
		if err := step(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "none") {
			t.Errorf("%s of no file: %v", name, err)
		}
	}
}

// Files made by hand know no dates: the last line is the newest.
func TestRotationOfUndatedSecrets(t *testing.T) {
	path := write(t, string(formatSecrets([]Secret{secretA, secretB, secretC})), 0o600)
	if err := RotateSwitch(path); err != nil {
		t.Fatal(err)
	}
	if s := load(t, path); s.Current != secretC || !slices.Equal(s.Previous, []Secret{secretA, secretB}) {
		t.Error("the last line is not the current one, or the others are not accepted")
	}
	if err := RotateFinish(path); err != nil {
		t.Fatal(err)
	}
	if s := load(t, path); s.Current != secretC || len(s.Previous) != 0 {
		t.Error("the current one is not alone")
	}
}

func TestDatedSecrets(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	first := datedSecret(now, secretA)
	if stamp(first) != "kvs-20250102T020405Z-" || len(first) != len(stampLayout)+64 {
		t.Errorf("a secret of %d bytes begins with %q", len(first), stamp(first))
	}
	for _, clock := range []time.Duration{0, time.Millisecond, time.Hour, -time.Hour, -1000 * time.Hour} {
		if second := datedSecret(now.Add(clock), first); stamp(second) <= stamp(first) {
			t.Errorf("with the clock %v on, %q follows %q", clock, stamp(second), stamp(first))
		}
	}
	for _, s := range []Secret{"", "kvs-", "kvs-20250102T030405Z", "kvs-20251302T030405Z-xxxxxxxxxxx", "kvs-2025010xT030405Z-xxxxxxxxxxx", secretA} {
		if stamp(s) != "" {
			t.Errorf("%s is dated %q", string(s), stamp(s))
		}
	}
}

// A link goes on pointing to the file, as those that a container is given do.
func TestRotationFollowsLinks(t *testing.T) {
	path := write(t, string(secretA)+"\n", 0o600)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := RotateAdd(link); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
	if s := load(t, path); len(s.Previous) != 1 {
		t.Error("what it points to was not changed")
	}
}

// Whoever reads meanwhile finds a state between steps, and of many that add at
// once one does.
func TestRotationIsAtomic(t *testing.T) {
	path := write(t, string(secretA)+"\n", 0o600)
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for reading := true; reading; {
			select {
			case <-done:
				reading = false
			default:
			}
			if s, err := LoadSecret(SecretOptions{File: path}); err != nil || len(s.Previous) > 1 {
				t.Errorf("a reader finds %d accepted ones, %v", len(s.Previous), err)
			}
		}
	})
	for range 10 {
		before := load(t, path).Current
		for _, step := range []func(string) error{RotateAdd, RotateSwitch, RotateFinish} {
			var succeeded atomic.Int32
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if step(path) == nil {
						succeeded.Add(1)
					}
				})
			}
			wg.Wait()
			if n := succeeded.Load(); n != 1 {
				t.Fatalf("%d of 8 at once did it", n)
			}
		}
		if s := load(t, path); s.Current == before || len(s.Previous) != 0 {
			t.Fatal("a rotation did not change the secret")
		}
	}
	close(done)
	reader.Wait()
}

func FuzzSecretFile(f *testing.F) {
	f.Add(string(formatSecrets([]Secret{secretA, secretB})))
	f.Add("\r\n\x00" + string(secretA) + " \n\n\u2028short")
	f.Fuzz(func(t *testing.T, text string) {
		held, err := parseSecrets("it", text)
		if err != nil {
			return
		}
		for _, s := range held {
			if len(s) < MinSecret || !strings.Contains(text, string(s)) {
				t.Fatalf("%q gives a secret of %d bytes", text, len(s))
			}
		}
		if again, err := parseSecrets("it", string(formatSecrets(held))); err != nil || !slices.Equal(again, held) {
			t.Fatalf("%q is written and read as %d secrets, %v", text, len(again), err)
		}
	})
}
