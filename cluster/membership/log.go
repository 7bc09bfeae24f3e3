package membership

import (
	"bytes"
	"log"
	"log/slog"
	"sync"
	"time"
)

// gossipLogger takes memberlist's log over at debug level: what it calls errors
// is daily life (a node that does not answer). Packets that cannot be decrypted
// are worth a warning, now and then.
func gossipLogger(l *slog.Logger) *log.Logger {
	return log.New(&gossipLog{log: l}, "", 0)
}

const undecryptedEvery = time.Minute

type gossipLog struct {
	log    *slog.Logger
	mu     sync.Mutex
	warned time.Time // guarded by mu
}

func (g *gossipLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	if bytes.Contains(line, []byte("Decrypt packet failed")) {
		g.mu.Lock()
		due := g.warned.IsZero() || time.Since(g.warned) > undecryptedEvery
		if due {
			g.warned = time.Now()
		}
		g.mu.Unlock()
		if due {
			g.log.Warn("gossip that this node's cluster_secret does not decrypt: another cluster sends to this port, or the secrets differ", "detail", text)
			return len(line), nil
		}
	}
	g.log.Debug(text)
	return len(line), nil
}
