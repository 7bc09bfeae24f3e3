package auth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kvs/utils/atomicfile"
)

// A secret is changed in three steps, and after each the file goes to all nodes,
// which are restarted one by one. At no moment do two nodes fail to understand
// each other, since both have the secret that either uses:
//
//	RotateAdd     old            ->  old, new   all accept the new one
//	RotateSwitch  old, new       ->  new, old   then all use it
//	RotateFinish  new, old       ->  new        then the old one is worth nothing
//
// A step that is out of order is refused. To tell the second state from the
// third, a secret made by RotateAdd begins with the time it was made:
// "kvs-20060102T150405Z-" and 64 hexadecimal digits. A secret without a time
// counts as older than any with one.
//
// Each step replaces the file at once, keeping its mode and its owner: a crash
// leaves the file of before or of after. Of two that run at once one is refused,
// where the system has file locks.

// RotateAdd adds a fresh secret to a file that holds one, as accepted.
func RotateAdd(path string) error {
	return rotate(path, func(held []Secret) ([]Secret, error) {
		if len(held) > 1 {
			return nil, fmt.Errorf("it already holds %d secrets: finish the rotation under way first", len(held))
		}
		return append(held, datedSecret(time.Now(), held[0])), nil
	})
}

// RotateSwitch makes the newest accepted secret of a file the current one; the
// one that was stays accepted.
func RotateSwitch(path string) error {
	return rotate(path, func(held []Secret) ([]Secret, error) {
		if len(held) == 1 {
			return nil, errors.New("it holds one secret, so there is none to switch to: add one first")
		}
		i := newestAccepted(held)
		if stamp(held[i]) < stamp(held[0]) {
			return nil, errors.New("its newest secret is the current one already: finish the rotation, once all nodes have this file")
		}
		newest := held[i]
		return slices.Insert(slices.Delete(held, i, i+1), 0, newest), nil
	})
}

// RotateFinish drops all secrets of a file but the current one.
func RotateFinish(path string) error {
	return rotate(path, func(held []Secret) ([]Secret, error) {
		if len(held) == 1 {
			return nil, errors.New("it holds one secret: no rotation is under way")
		}
		if stamp(held[newestAccepted(held)]) > stamp(held[0]) {
			return nil, errors.New("its newest secret is not the current one: switch to it first, or it would be lost")
		}
		return held[:1], nil
	})
}

// rotate replaces the secrets in a file.
func rotate(path string, step func(held []Secret) ([]Secret, error)) error {
	const name = "the secret file"
	// What a link points to, or the link would become a file.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	unlock, err := lockSecretFile(path)
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, path, err)
	}
	defer unlock()
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	held, err := readSecretFile(name, path, forbiddenMode)
	if err != nil {
		return err
	}
	next, err := step(held)
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, path, err)
	}
	text := formatSecrets(next)
	if len(text) > maxSecretFile {
		return fmt.Errorf("%s %s: it would be longer than %d bytes: use a shorter secret", name, path, maxSecretFile)
	}
	if err := atomicfile.Write(path, text, info.Mode().Perm()); err != nil {
		return fmt.Errorf("%s %s: %w", name, path, err)
	}
	if err := keepOwner(path, info); err != nil {
		return fmt.Errorf("%s %s was changed, but now belongs to this user: give it back by `chown`: %w", name, path, err)
	}
	return nil
}

// newestAccepted gives the place of the secret to switch to: the one made last,
// or else the last one.
func newestAccepted(held []Secret) int {
	newest := 1
	for i := 2; i < len(held); i++ {
		if stamp(held[i]) >= stamp(held[newest]) {
			newest = i
		}
	}
	return newest
}

const stampLayout = "kvs-20060102T150405Z-"

// stamp is what a secret made by RotateAdd begins with, "" for others. Stamps
// sort by time.
func stamp(s Secret) string {
	if at := string(s[:min(len(s), len(stampLayout))]); strings.HasPrefix(at, "kvs-") {
		if _, err := time.Parse(stampLayout, at); err == nil {
			return at
		}
	}
	return ""
}

// datedSecret makes a secret that is newer than another, whatever the clock says.
func datedSecret(now time.Time, than Secret) Secret {
	if at, err := time.Parse(stampLayout, stamp(than)); err == nil && !now.After(at.Add(time.Second)) {
		now = at.Add(time.Second)
	}
	return Secret(now.UTC().Format(stampLayout)) + freshSecret()
}
