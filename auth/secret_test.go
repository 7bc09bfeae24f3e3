package auth

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	secretA Secret = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	secretB Secret = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	secretC Secret = "cccccccccccccccccccccccccccccccccccccccc"
)

func write(t *testing.T, data string, perm fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, perm); err != nil { // past the umask
		t.Fatal(err)
	}
	return path
}

func TestLoadSecret(t *testing.T) {
	file := write(t, "\n "+string(secretA)+"\r\n", 0o640)
	automatic := write(t, string(secretB)+"\n", 0o600)
	several := write(t, fmt.Sprintf("\n\n%s\r\n \n\t%s \n\n%s", string(secretB), string(secretA), string(secretC)), 0o600)
	automaticSeveral := write(t, fmt.Sprintf("%s\n%s\n", string(secretA), string(secretB)), 0o600)
	for _, c := range []struct {
		name string
		o    SecretOptions
		want Secrets
	}{
		{"given", SecretOptions{Secret: secretA}, Secrets{Current: secretA}},
		{"of exactly the least length", SecretOptions{Secret: secretA[:32]}, Secrets{Current: secretA[:32]}},
		{"in a file", SecretOptions{File: file}, Secrets{Current: secretA, File: file}},
		{"automatic", SecretOptions{AutomaticFile: automatic}, Secrets{Current: secretB, File: automatic, Automatic: true}},
		{"with a previous one", SecretOptions{Secret: secretA, Previous: []Secret{secretB}},
			Secrets{Current: secretA, Previous: []Secret{secretB}}},
		{"several in a file", SecretOptions{File: several},
			Secrets{Current: secretB, Previous: []Secret{secretA, secretC}, File: several}},
		{"several in a file, and a previous one", SecretOptions{File: several, Previous: []Secret{secretA[:32]}},
			Secrets{Current: secretB, Previous: []Secret{secretA[:32], secretA, secretC}, File: several}},
		{"several in the automatic file", SecretOptions{AutomaticFile: automaticSeveral},
			Secrets{Current: secretA, Previous: []Secret{secretB}, File: automaticSeveral, Automatic: true}},
	} {
		got, err := LoadSecret(c.o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got.Current != c.want.Current || got.File != c.want.File || got.Automatic != c.want.Automatic ||
			!slices.Equal(got.Previous, c.want.Previous) {
			t.Errorf("%s: %+v with %d previous, want %+v with %d", c.name, got, len(got.Previous), c.want, len(c.want.Previous))
		}
	}
}

func TestLoadSecretRefuses(t *testing.T) {
	long := string(secretA)
	for _, c := range []struct {
		name string
		o    SecretOptions
		want []string // each is in the error
	}{
		{"short", SecretOptions{Secret: secretA[:31]}, []string{"cluster_secret", "31", "openssl rand -hex 32"}},
		{"both", SecretOptions{Secret: secretA, File: "x"}, []string{"cluster_secret_file", "remove one"}},
		{"missing file", SecretOptions{File: "/nonexistent/secret"}, []string{"cluster_secret_file", "/nonexistent/secret"}},
		{"short file", SecretOptions{File: write(t, "short\n", 0o600)}, []string{"cluster_secret_file", "openssl"}},
		{"empty file", SecretOptions{File: write(t, "", 0o600)}, []string{"0 bytes"}},
		{"blank file", SecretOptions{File: write(t, " \n\n", 0o600)}, []string{"0 bytes"}},
		{"short second line", SecretOptions{File: write(t, long+"\n\nshort\n", 0o600)}, []string{"secret 2 of", "each line", "openssl"}},
		{"huge file", SecretOptions{File: write(t, strings.Repeat("x", maxSecretFile+1), 0o600)}, []string{"larger than"}},
		{"readable by all", SecretOptions{File: write(t, long, 0o644)}, []string{"0644", "chmod 640 "}},
		{"writable by the group", SecretOptions{File: write(t, long, 0o660)}, []string{"0660", "chmod 640 "}},
		{"automatic, readable by the group", SecretOptions{AutomaticFile: write(t, long, 0o640)}, []string{"0640", "chmod 600 "}},
		{"automatic, short", SecretOptions{AutomaticFile: write(t, "x", 0o600)}, []string{"automatic", "openssl"}},
		{"short previous", SecretOptions{Secret: secretA, Previous: []Secret{secretB, "x"}}, []string{"previous_secrets[1]"}},
	} {
		_, err := LoadSecret(c.o)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", c.name, err, want)
			}
		}
		if strings.Contains(err.Error(), long[:31]) {
			t.Errorf("%s: the error shows the secret", c.name)
		}
	}
}

func TestAutomaticSecretIsMadeOnceByMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config", "kvs", "cluster.secret")
	found := make([]Secrets, 16)
	var wg sync.WaitGroup
	for i := range found {
		wg.Go(func() {
			var err error
			if found[i], err = LoadSecret(SecretOptions{AutomaticFile: path}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range found {
		if s.Current != found[0].Current || len(s.Current) != 64 || !s.Automatic {
			t.Fatal("the nodes do not agree on one secret of 64 digits")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its directory has mode %v, %v", info.Mode(), err)
	}
}

func TestAutomaticFileIsTheUsers(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", "/somewhere")
	t.Setenv("HOME", "")
	if got, err := AutomaticFile(); err != nil || got != "/somewhere/kvs/cluster.secret" {
		t.Errorf("AutomaticFile gives %q, %v", got, err)
	}
	t.Setenv("XDG_CONFIG_HOME", "")
	if _, err := LoadSecret(SecretOptions{}); err == nil || !strings.Contains(err.Error(), "set cluster_secret") {
		t.Errorf("without a home directory: %v", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	s := Secrets{Current: secretA, Previous: []Secret{secretB}}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %q %x", s, s, s, secretA, secretA, secretA), string(b)} {
		if strings.Contains(text, "aaaa") || strings.Contains(text, "bbbb") || strings.Contains(text, "6161") {
			t.Errorf("a secret shows in %s", text)
		}
	}
}

// The derived keys are part of the protocol between nodes.
func TestKeys(t *testing.T) {
	k := DeriveKeys(Secrets{Current: secretA, Previous: []Secret{secretB}})
	if got := fmt.Sprintf("%x", k.Gossip); got != "b4836978c86aec47a6f1dd949b6a3485289f9f9e02701b6c2019d8026fdaccbf" {
		t.Errorf("gossip key %s", got)
	}
	if got := fmt.Sprintf("%x", k.nodeToken[0]); got != "3b5398fe49b2518e335dc290482d164de1d23b4185da4348dcb69b58995be33c" {
		t.Errorf("node token key %s", got)
	}
	if got := fmt.Sprintf("%x", k.client[0].signing); got != "9238f67eff96dd04d6c9aab29d1e889293301de10dc21efaa4fe03e0ce5fdf70" {
		t.Errorf("client token key %s", got)
	}
	if got := fmt.Sprintf("%x", k.client[0].tokenID); got != "d4b78568744365a793bf0c532b8a31c4b6b2ad1312f739b10b35f037cfb51154" {
		t.Errorf("token id key %s", got)
	}
	seen := map[string]bool{}
	all := append(append([][]byte{k.Gossip}, k.PreviousGossip...), k.nodeToken...)
	for _, c := range k.client {
		all = append(all, c.signing, c.tokenID)
	}
	for _, key := range all {
		if len(key) != 32 || seen[string(key)] {
			t.Errorf("key %x is not 32 bytes, or is there twice", key)
		}
		seen[string(key)] = true
	}
	if len(all) != 8 || k.client[0].id == k.client[1].id {
		t.Errorf("%d keys, kids %v", len(all), k.client[0].id != k.client[1].id)
	}
}
