package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"kvs/utils/atomicfile"
)

// position is how far an import is done. Every line up to Lines is in the store
// or was left out, and SHA256 is the hash of those lines, each with one line
// break: a position fits any file that begins with them, compressed or not.
type position struct {
	Lines  int    `json:"lines"`
	SHA256 string `json:"sha256"`
}

// bookmark is the position of one import on disk. It stands for one file and one
// node; the zero bookmark keeps nothing.
type bookmark struct {
	path   string
	frozen bool // stays as it is until the import is complete
	done   position
	entry  bookmarkEntry
	last   time.Time // of the last save
	err    error     // of the last save
}

// bookmarkEntry is the file's content.
type bookmarkEntry struct {
	File string `json:"file"` // absolute
	URL  string `json:"url"`
	// Node is the UUID of the node that has the lines. One that was emptied and
	// started anew has another, and so needs them all.
	Node string `json:"node"`
	position
}

// saveEvery bounds how often a bookmark is written, and so how much is imported
// twice after a crash.
const saveEvery = time.Second

// openBookmark finds the bookmark of an import, at its start where there is
// none that fits.
func openBookmark(file, url, node string) (*bookmark, error) {
	if node == "" {
		return nil, errors.New("the node does not tell its uuid")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256([]byte(absolute + "\x00" + url))
	b := &bookmark{
		path:  filepath.Join(cache, "kvs", "import", hex.EncodeToString(id[:12])+".json"),
		entry: bookmarkEntry{File: absolute, URL: url, Node: node},
	}
	text, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	var found bookmarkEntry
	// What cannot be read is no bookmark: beginning at line 1 is always right.
	if json.Unmarshal(text, &found) == nil && found.Node == node && found.File == absolute && found.URL == url && found.Lines > 0 {
		b.done = found.position
	}
	return b, nil
}

// kept reports whether the next run will find how far this one came.
func (b *bookmark) kept() bool { return b.path != "" && !b.frozen && b.err == nil }

// note keeps a position: now and then, or at once with force. A failure is no
// reason to stop the import; it makes kept false.
func (b *bookmark) note(p position, force bool) {
	if b.path == "" || b.frozen || p.Lines == 0 || !force && time.Since(b.last) < saveEvery {
		return
	}
	b.last = time.Now()
	b.entry.position = p
	b.err = b.save()
}

func (b *bookmark) save() error {
	text, err := json.Marshal(b.entry)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(b.path, text, 0o600)
}

// forget removes the bookmark of an import that is complete. One that stays is
// harmless: what it says still holds.
func (b *bookmark) forget() {
	if b.path != "" {
		os.Remove(b.path)
	}
}
