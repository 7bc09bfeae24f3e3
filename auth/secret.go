package auth

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"kvs/utils/atomicfile"
)

// MinSecret is the least length of a secret, in bytes.
const MinSecret = 32

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
	Previous  []Secret // also accepted, while the nodes change over one by one: those given, then those of the file
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
		found.File = o.File
		err = found.read("cluster_secret_file", forbiddenMode)
	default:
		found.Automatic = true
		if found.File = o.AutomaticFile; found.File == "" {
			if found.File, err = AutomaticFile(); err != nil {
				return Secrets{}, err
			}
		}
		err = found.readAutomatic()
	}
	if err != nil {
		return Secrets{}, err
	}
	return found, nil
}

// readAutomatic reads the file, and makes it where it is missing.
func (s *Secrets) readAutomatic() error {
	const name, forbidden = "the automatic secret file", 0o077
	err := s.read(name, forbidden)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.File), 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", name, err)
	}
	err = atomicfile.Create(s.File, formatSecrets([]Secret{freshSecret()}), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", name, err)
	}
	// Read back in any case: what counts is what the other nodes will read.
	return s.read(name, forbidden)
}

// read takes the secrets of the file.
func (s *Secrets) read(name string, forbidden fs.FileMode) error {
	lines, err := readSecretFile(name, s.File, forbidden)
	if err != nil {
		return err
	}
	s.Current, s.Previous = lines[0], append(slices.Clip(s.Previous), lines[1:]...)
	return nil
}

func freshSecret() Secret {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return Secret(hex.EncodeToString(b[:]))
}
