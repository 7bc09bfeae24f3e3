package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"kvs/auth"
	"kvs/client"
	"kvs/config"
)

// Whoever has the cluster secret needs no token: a command makes one for itself.
// So on a node's machine everything works with nothing to set up, and what a
// command sent is worth nothing minutes later.

// secretPlace says where the cluster secret stands.
type secretPlace struct {
	cfg       config.Config
	config    string // the configuration file that was read; "": there is none
	file      string // the secret file; "": the secret stands in a setting
	automatic bool   // it is the file of this user, which may not be there yet
}

// findSecretPlace looks where a node would: in the environment, else in the
// configuration file that is named, else in ./config.yaml, else it is the
// automatic file.
func findSecretPlace(configFile string) (secretPlace, error) {
	p := secretPlace{config: configFile}
	if configFile == "" {
		switch _, err := os.Stat(defaultConfigFile); {
		case err == nil:
			p.config = defaultConfigFile
		case !errors.Is(err, fs.ErrNotExist):
			return p, err
		}
	}
	var err error
	p.cfg, err = config.Load(p.config, os.Environ())
	if err != nil && configFile == "" && os.Getenv("KVS_CLUSTER_SECRET") != "" {
		// The file has nothing to say then, and may not even be one of ours.
		p.config = ""
		p.cfg, err = config.Load("", os.Environ())
	}
	if err != nil {
		return p, err
	}
	switch {
	case p.cfg.ClusterSecret != "":
	case p.cfg.ClusterSecretFile != "":
		p.file = p.cfg.ClusterSecretFile
	default:
		p.automatic = true
		p.file, err = auth.AutomaticFile()
	}
	return p, err
}

// String names the place for people.
func (p secretPlace) String() string {
	switch {
	case p.file != "":
		return p.file
	case p.inEnvironment():
		return "KVS_CLUSTER_SECRET"
	}
	return "cluster_secret in " + p.config
}

func (p secretPlace) inEnvironment() bool {
	return p.file == "" && os.Getenv("KVS_CLUSTER_SECRET") != ""
}

// missing reports whether it is the automatic file and no node has made it yet.
func (p secretPlace) missing() bool {
	if !p.automatic {
		return false
	}
	_, err := os.Stat(p.file)
	return errors.Is(err, fs.ErrNotExist)
}

// errNoSecret is that this user has no secret at all.
var errNoSecret = errors.New("there is no cluster secret here")

// load reads the secret. The automatic file is made only where create is set: a
// command that merely talks to a node has no business to.
func (p secretPlace) load(create bool) (auth.Secrets, error) {
	if !create && p.missing() {
		return auth.Secrets{}, fmt.Errorf("%w: neither KVS_CLUSTER_SECRET nor a configuration names one, and %s does not exist",
			errNoSecret, p.file)
	}
	return auth.LoadSecret(auth.SecretOptions{
		Secret:   p.cfg.ClusterSecret,
		File:     p.cfg.ClusterSecretFile,
		Previous: p.cfg.PreviousSecrets,
	})
}

// mintedLife is how long a token lives that a command makes for itself. It is
// replaced when half of that is over: an import may take hours.
const mintedLife = 5 * time.Minute

// minter makes the tokens of one command.
type minter struct {
	tokens *auth.ClientTokens
	now    func() time.Time

	mu    sync.Mutex // guards all below
	token string
	made  time.Time
}

func newMinter(s auth.Secrets, now func() time.Time) *minter {
	return &minter{tokens: auth.NewClientTokens(auth.ClientTokensOptions{Keys: auth.DeriveKeys(s), Now: now}), now: now}
}

// Token is a client.TokenSource.
func (m *minter) Token() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// By the wall clock, which goes on while a machine sleeps, as tokens expire.
	now := m.now().Round(0)
	if age := now.Sub(m.made); m.token != "" && age >= 0 && age < mintedLife/2 {
		return m.token, nil
	}
	token, _, err := m.tokens.Issue(auth.Root, auth.Scopes{{Scope: auth.ScopeAdmin}}, mintedLife)
	if err != nil {
		return "", err
	}
	m.token, m.made = token, now
	return token, nil
}

// access is how one command shows who it is.
type access struct {
	token  string             // KVS_TOKEN
	source client.TokenSource // else
	place  string             // of the secret that source uses
	why    error              // else: why there is neither
}

// findAccess looks for KVS_TOKEN, else for the secret. To have neither is no
// error, since a node may ask for none; but a configuration that the user named
// has to be one.
func findAccess(configFile string) (access, error) {
	if token := os.Getenv("KVS_TOKEN"); token != "" {
		return access{token: token}, nil
	}
	p, err := findSecretPlace(configFile)
	var secrets auth.Secrets
	if err == nil {
		secrets, err = p.load(false)
	}
	switch {
	case err == nil:
		return access{source: newMinter(secrets, time.Now).Token, place: p.String()}, nil
	case configFile != "" && !errors.Is(err, errNoSecret):
		return access{}, err
	}
	return access{why: err}, nil
}

// hint tells how to get past a node's refusal.
func (a access) hint() string {
	const another = "`kvs token create --scope admin` on a machine that has the cluster secret"
	switch {
	case a.token != "":
		return "KVS_TOKEN was sent. Set it to another one, made by " + another + "; " +
			"or unset it, where this machine has the secret."
	case a.source != nil:
		return fmt.Sprintf("A token made from %s was sent: the node has another secret (name its configuration by --config), "+
			"or its clock is off by more than %s.", a.place, mintedLife)
	}
	return fmt.Sprintf("No token was sent: %v. Set KVS_TOKEN to one made by %s, or name the node's configuration by --config.", a.why, another)
}
