package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"kvs/auth"
	"kvs/config"
	"kvs/features/ratelimit"
	"kvs/storage"
	"kvs/types"
)

// trust is what a node knows of who may do what. It is made before the store is
// opened, since it follows the store's commits.
type trust struct {
	secrets auth.Secrets // empty on a node that needs none
	keys    auth.Keys
	people  *auth.Directory
	audit   *auditor
	proxies []netip.Prefix // trusted_proxies
}

// newTrust finds the secret, where something needs it.
func newTrust(cfg config.Config, log *slog.Logger) (*trust, error) {
	t := &trust{people: auth.NewDirectory(nil), audit: newAuditor(cfg.DataDir, cfg.TamperLoggingEnabled, log)}
	var err error
	if t.proxies, err = ratelimit.ParseNetworks(cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("trusted_proxies: %w", err)
	}
	if cfg.ClusteringEnabled || cfg.AuthEnabled {
		if t.secrets, err = auth.LoadSecret(secretOptions(cfg)); err != nil {
			return nil, err
		}
		t.keys = auth.DeriveKeys(t.secrets)
	}
	return t, nil
}

func secretOptions(cfg config.Config) auth.SecretOptions {
	return auth.SecretOptions{Secret: cfg.ClusterSecret, File: cfg.ClusterSecretFile, Previous: cfg.PreviousSecrets}
}

// hooks are what follows the store's commits.
func (t *trust) hooks() []storage.Hook {
	return append(t.audit.hooks(), directoryHook{t.people})
}

// start reads what the store has. Nothing may be written before.
func (t *trust) start(ctx context.Context, store *storage.Store) error {
	o := storage.ScanOptions{NS: types.NSAuth, Limit: maxRangeLimit}
	for more := true; more; {
		page, err := store.Scan(ctx, o)
		if err != nil {
			return err
		}
		for _, rec := range page.Records {
			t.people.Apply(rec)
		}
		o.Start, more = page.Next, page.More
	}
	return t.audit.start(ctx, store)
}

// gate is the way in that the configuration asks for.
func (t *trust) gate(cfg config.Config, tokens *auth.ClientTokens) gate {
	g := gate{proxies: t.proxies}
	if cfg.AuthEnabled {
		g.authenticator = auth.NewAuthenticator(auth.AuthenticatorOptions{
			Tokens:         tokens,
			Directory:      t.people,
			AnonymousRead:  cfg.AllowAnonymousRead,
			AnonymousWrite: cfg.AllowAnonymousWrite,
		})
	}
	if cfg.RateLimitingEnabled {
		g.limiter = ratelimit.New(ratelimit.Options{Requests: cfg.RateLimitRequests, Window: cfg.RateLimitWindow})
	}
	return g
}

// directoryHook keeps the directory as the store is: whoever is answered finds
// the change that they asked for in force.
type directoryHook struct{ people *auth.Directory }

func (directoryHook) Keyspace() byte                          { return 0 } // it keeps nothing
func (directoryHook) Stage(*storage.HookTx, []storage.Staged) {}

func (h directoryHook) Committed(_ uint64, changes []storage.Staged) {
	for i := range changes {
		if changes[i].New.NS == types.NSAuth {
			h.people.Apply(changes[i].New)
		}
	}
}
