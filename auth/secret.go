package auth

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"kvs/utils/atomicfile"
)

// MinSecret is the least length of a secret, in bytes.
const MinSecret = 32

// maxSecretFile bounds what is read of a secret file.
const maxSecretFile = 4096

// Secret is a cluster secret. It does not print.
type Secret string

const redacted = "[secret]"

// String hides the secret.
func (s Secret) String() string { return redacted }

// GoString hides the secret.
func (s Secret) GoString() string { return redacted }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Check refuses a secret that is too short; name says where it was found.
func (s Secret) Check(name string) error {
	if len(s) < MinSecret {
		return fmt.Errorf("%s has %d bytes, at least %d are needed: make one with `openssl rand -hex 32`",
			name, len(s), MinSecret)
	}
	return nil
}

// SecretOptions say where to find the secret. At most one of Secret and File is
// set; with neither it is the automatic file of this user.
type SecretOptions struct {
	Secret        Secret
	File          string
	Previous      []Secret
	AutomaticFile string // "": AutomaticFile()
}

// Secrets is what was found.
type Secrets struct {
	Current   Secret
	Previous  []Secret // still accepted, while the nodes change over one by one
	File      string   // where Current was read; "" if it was given
	Automatic bool     // File is the automatic one: good for nodes of one user on one machine
}

// AutomaticFile is the secret file of this user: kvs/cluster.secret in the
// directory for configuration.
func AutomaticFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("there is no place for the automatic secret file (%w): "+
			"set cluster_secret or cluster_secret_file", err)
	}
	return filepath.Join(dir, "kvs", "cluster.secret"), nil
}

// LoadSecret finds the secret, and makes the automatic file where that is asked
// for and missing. Of several nodes that make it at once one wins and all read
// the same.
func LoadSecret(o SecretOptions) (Secrets, error) {
	if o.Secret != "" && o.File != "" {
		return Secrets{}, errors.New("both cluster_secret and cluster_secret_file are set: remove one")
	}
	found := Secrets{Previous: o.Previous}
	for i, s := range o.Previous {
		if err := s.Check(fmt.Sprintf("previous_secrets[%d]", i)); err != nil {
			return Secrets{}, err
		}
	}
	var err error
	switch {
	case o.Secret != "":
		found.Current, err = o.Secret, o.Secret.Check("cluster_secret")
	case o.File != "":
		// A group may read it: that is how a service's account gets a file of root.
		found.File = o.File
		found.Current, err = readSecret("cluster_secret_file", o.File, 0o027)
	default:
		found.Automatic = true
		if found.File = o.AutomaticFile; found.File == "" {
			if found.File, err = AutomaticFile(); err != nil {
				return Secrets{}, err
			}
		}
		found.Current, err = automaticSecret(found.File)
	}
	if err != nil {
		return Secrets{}, err
	}
	return found, nil
}

func automaticSecret(path string) (Secret, error) {
	const name, forbidden = "the automatic secret file", 0o077
	s, err := readSecret(name, path, forbidden)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make the directory of %s: %w", name, err)
	}
	var b [32]byte
	rand.Read(b[:]) // never fails
	fresh := hex.EncodeToString(b[:])
	err = atomicfile.Create(path, []byte(fresh+"\n"), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	// Read back in any case: what counts is what the other nodes will read.
	return readSecret(name, path, forbidden)
}

// readSecret reads a secret file, white space around the secret dropped. It
// refuses a file with any of the forbidden permissions.
func readSecret(name, path string, forbidden fs.FileMode) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	// Windows has no such permissions and shows 0666 for any file.
	if mode := info.Mode().Perm(); mode&forbidden != 0 && runtime.GOOS != "windows" {
		return "", fmt.Errorf("%s %s has mode %04o, so that others may read or change the secret: run `chmod %o %s`",
			name, path, mode, mode&^forbidden&^0o111, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > maxSecretFile {
		return "", fmt.Errorf("%s %s is longer than %d bytes: it must hold the secret alone", name, path, maxSecretFile)
	}
	s := Secret(strings.TrimSpace(string(b)))
	return s, s.Check(name + " " + path)
}
