package cluster

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Handler serves everything between nodes, under /sync/.
func (c *Cluster) Handler() http.Handler { return c.handler }

// routes puts the check of the node token before every handler. Paths are
// compared as they are: nothing between nodes is redirected.
func (c *Cluster) routes() http.Handler {
	handlers := c.repl.Handlers()
	maps.Copy(handlers, c.members.Handlers())
	for name, call := range c.opts.Calls {
		handlers[callPrefix+name] = c.serveCall(call)
	}
	strangers := &strangers{log: c.log}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := c.opts.Authenticate(r)
		if err != nil {
			strangers.note(r, err)
			problem(w, http.StatusUnauthorized, "unauthorized", "this is between nodes, and wants a node token: "+err.Error())
			return
		}
		h := handlers[r.URL.Path]
		if h == nil {
			problem(w, http.StatusNotFound, "not_found", "there is no such call between nodes: "+r.URL.Path)
			return
		}
		if strings.HasPrefix(r.URL.Path, callPrefix) {
			r = r.WithContext(context.WithValue(r.Context(), callerKey{}, from))
		}
		h.ServeHTTP(w, r)
	})
}

// problem answers with an RFC 9457 document.
func problem(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"title": http.StatusText(status), "status": status, "code": code, "detail": detail,
	})
}

// strangers logs calls without a valid token: often enough to find a wrong
// secret, not so often that anybody can fill the log.
type strangers struct {
	log    *slog.Logger
	mu     sync.Mutex           // guards logged
	logged map[string]time.Time // by host
}

const (
	strangerEvery = 10 * time.Minute
	maxStrangers  = 100 // hosts that are told apart
)

func (s *strangers) note(r *http.Request, err error) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	now := time.Now()
	s.mu.Lock()
	due := s.logged[host].IsZero() || now.Sub(s.logged[host]) > strangerEvery
	if due {
		if s.logged == nil || len(s.logged) >= maxStrangers {
			s.logged = map[string]time.Time{}
		}
		s.logged[host] = now
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("a call for nodes was refused: if it comes from a node of this cluster, its cluster_secret differs, or a clock is wrong",
			"from", r.RemoteAddr, "path", r.URL.Path, "error", err)
	}
}
