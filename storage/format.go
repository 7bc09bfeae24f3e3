package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"kvs/types"
	"kvs/utils/atomicfile"
)

// FormatVersion is the version of the whole data directory: keyspaces, record
// codec, checkpoint and ceiling. An unknown one is refused.
const FormatVersion = 1

const (
	formatFile  = "FORMAT"
	ceilingFile = "ceiling"
)

// prepareDir makes the directory, or checks that it is ours and of a format
// that this program knows.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(dir, formatFile)
	b, err := os.ReadFile(path)
	if err == nil {
		if got := strings.TrimSpace(string(b)); got != formatLine() {
			return fmt.Errorf("data directory %s is of format %q, this program knows %q; use the version of kvs that wrote it", dir, got, formatLine())
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("data directory %s holds %q and no %s file: it is not a data directory of kvs; choose an empty one", dir, e.Name(), formatFile)
		}
	}
	return atomicfile.Write(path, []byte(formatLine()+"\n"), 0o600)
}

func formatLine() string { return fmt.Sprintf("kvs data %d", FormatVersion) }

// Identity is who a node is: made once, kept in its data directory.
type Identity struct {
	UUID   types.NodeID
	Joined int64 // Unix ms of the first start; decides ties between versions
}

// identityFile is a file of its own and no entry of the database: one damaged
// block must not cost a node its name.
const identityFile = "identity.json"

type identityJSON struct {
	UUID   string `json:"uuid"`
	Joined int64  `json:"joined"`
}

// loadIdentity reads the identity, or makes one in a new directory.
func (s *Store) loadIdentity() error {
	path := filepath.Join(s.opts.Dir, identityFile)
	b, err := os.ReadFile(path)
	if err == nil {
		var id identityJSON
		if err = json.Unmarshal(b, &id); err == nil {
			s.identity.Joined = id.Joined
			s.identity.UUID, err = types.ParseNodeID(id.UUID)
		}
		if err != nil {
			return fmt.Errorf("%s is damaged: %w", path, err)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the node's identity: %w", err)
	}
	if _, count := s.tree.Root(); count > 0 {
		return fmt.Errorf("%s is missing from a directory that holds records; put it back, or move the directory away and start with an empty one", path)
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("make the node's identity: %w", err)
	}
	s.identity = Identity{UUID: types.NodeID(id), Joined: s.clock.Wall().UnixMilli()}
	b, err = json.Marshal(identityJSON{s.identity.UUID.String(), s.identity.Joined})
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}
