//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package auth

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// A file of root that a service's group may read stays that group's.
func TestRotationKeepsTheOwner(t *testing.T) {
	path := write(t, string(secretA)+"\n", 0o640)
	owner := func() (uid, gid uint32) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		s := info.Sys().(*syscall.Stat_t)
		return s.Uid, s.Gid
	}
	// Only root can give a file away; others see that it stays their own.
	if err := os.Chown(path, 12345, 23456); err != nil && !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
	uid, gid := owner()
	if err := RotateAdd(path); err != nil {
		t.Fatal(err)
	}
	if u, g := owner(); u != uid || g != gid {
		t.Errorf("the file belongs to %d:%d, not %d:%d", u, g, uid, gid)
	}
}

func TestOneRotationAtATime(t *testing.T) {
	path := write(t, string(secretA)+"\n", 0o600)
	unlock, err := lockSecretFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := RotateAdd(path); !errors.Is(err, errRotating) {
		t.Errorf("while another is under way: %v", err)
	}
	unlock()
	late, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := RotateAdd(path); err != nil {
		t.Errorf("after it: %v", err)
	}
	if err := lockOpened(late, path); !errors.Is(err, errRotating) {
		t.Errorf("who opened the file before it was replaced: %v", err)
	}
}
