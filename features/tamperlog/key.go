package tamperlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"kvs/utils/atomicfile"
)

// keyFile holds the seed of the Ed25519 key (RFC 8032) that signs checkpoints,
// in hexadecimal digits, on one line. It never leaves the data directory.
const keyFile = "audit.key"

// PublicKey is the public half of the key of a node.
type PublicKey [ed25519.PublicKeySize]byte

// String gives hexadecimal digits.
func (k PublicKey) String() string { return hex.EncodeToString(k[:]) }

// LoadPublicKey reads the public half of the key in a data directory. The error
// wraps fs.ErrNotExist if there is none.
func LoadPublicKey(dir string) (PublicKey, error) {
	key, err := readKey(filepath.Join(dir, keyFile))
	if err != nil {
		return PublicKey{}, err
	}
	return publicOf(key), nil
}

func publicOf(key ed25519.PrivateKey) PublicKey {
	return PublicKey(key.Public().(ed25519.PublicKey))
}

// loadKey reads the key, or makes it in a data directory that has none.
func loadKey(dir string) (key ed25519.PrivateKey, made bool, err error) {
	path := filepath.Join(dir, keyFile)
	key, err = readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails
	if err := atomicfile.Create(path, []byte(hex.EncodeToString(seed)+"\n"), 0o600); err != nil {
		return nil, false, fmt.Errorf("make the key of the tamper log: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), true, nil
}

func readKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the key of the tamper log: %w", err)
	}
	// Windows has no such permissions and shows 0666 for any file.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("the key of the tamper log %s has mode %04o, so that others may read or change it: run `chmod 600 %s`", path, mode, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the key of the tamper log: %w", err)
	}
	// What is wrong with the digits is not said: the error would show some.
	seed, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the key of the tamper log %s is damaged: put it back; or remove it, and a new one is made, "+
			"which the other nodes will report as changed", path)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
