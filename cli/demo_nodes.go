package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"kvs/auth"
	"kvs/client"
	"kvs/config"
	"kvs/server"
	"kvs/utils/faultnet"
	"kvs/utils/oneport"
)

// demoNodes are three nodes whose links can be cut.
type demoNodes struct {
	fabric  *faultnet.Fabric
	names   []string
	urls    []string
	clients []*client.Client
	dir     string // of all their data

	ctx    context.Context // of the show: ends with the caller's, or when a node ends
	cancel context.CancelFunc
	stops  []func() // stops a node and waits for it

	mu   sync.Mutex
	errs error // what ended nodes, or went wrong as they stopped; guarded by mu
}

const (
	demoSize = 3
	demoPort = 8081 // of the first node, if it is free
)

// startDemoNodes starts the nodes; that they find each other is awaited by the
// caller.
func startDemoNodes(ctx context.Context, log *slog.Logger, version string) (_ *demoNodes, err error) {
	d := &demoNodes{fabric: faultnet.New(0, oneport.Real())}
	d.ctx, d.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	if d.dir, err = os.MkdirTemp("", "kvs-demo-"); err != nil {
		return nil, err
	}
	// A secret of its own: the demo neither meets the user's real nodes nor makes
	// the user's secret file.
	secret := make([]byte, 32)
	rand.Read(secret)
	var seeds []string
	for i := range demoSize {
		cfg := demoConfig(d.dir, i, seeds, hex.EncodeToString(secret))
		address, err := d.start(cfg, log.With("node", cfg.NodeID), version)
		if err != nil {
			return nil, err
		}
		seeds = append(seeds, address)
	}
	return d, nil
}

func demoConfig(dir string, i int, seeds []string, secret string) config.Config {
	cfg := config.Default()
	cfg.NodeID = fmt.Sprintf("node%d", i+1)
	cfg.Port = freePort(cfg.BindAddress, demoPort+i)
	cfg.DataDir = filepath.Join(dir, cfg.NodeID)
	cfg.SeedNodes = append([]string(nil), seeds...)
	cfg.ClusterSecret = auth.Secret(secret)
	// For the show: whoever tries the printed addresses needs no token.
	cfg.AuthEnabled = false
	// Nothing of it is to be kept.
	cfg.BackupEnabled = false
	// A few documents need no half gigabyte of free disk; and nobody wants to
	// watch for minutes how a safety net is at work.
	cfg.MinFreeDisk = 64 << 20
	cfg.GossipIntervalMin, cfg.GossipIntervalMax = time.Second, 2*time.Second
	cfg.SyncInterval, cfg.CatchupInterval = 5*time.Second, 2*time.Second
	return cfg
}

// freePort gives the preferred port if it is free for TCP and UDP, else 0, which
// lets the node take any.
func freePort(host string, preferred int) int {
	ln, packets, err := oneport.Real().Listen(net.JoinHostPort(host, strconv.Itoa(preferred)))
	if err != nil {
		return 0
	}
	ln.Close()
	packets.Close()
	return preferred
}

func (d *demoNodes) start(cfg config.Config, log *slog.Logger, version string) (address string, err error) {
	node, err := server.New(cfg, server.Options{Network: d.fabric.Host(cfg.NodeID), Version: version, Log: log})
	if err != nil {
		return "", fmt.Errorf("%s: %w", cfg.NodeID, err)
	}
	// Not the show's context: see stop.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := node.Run(ctx)
		if err == nil && ctx.Err() == nil {
			err = errors.New("it has stopped")
		}
		if err != nil {
			d.mu.Lock()
			d.errs = errors.Join(d.errs, fmt.Errorf("%s: %w", cfg.NodeID, err))
			d.mu.Unlock()
		}
		d.cancel() // no show without one of the nodes
	}()
	d.stops = append(d.stops, func() { cancel(); <-done })
	url := "http://" + node.Address()
	c, err := client.New(client.Options{URL: url})
	if err != nil {
		return "", err
	}
	d.names = append(d.names, cfg.NodeID)
	d.urls = append(d.urls, url)
	d.clients = append(d.clients, c)
	return node.Address(), nil
}

// failure is why nodes have ended so far.
func (d *demoNodes) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.errs
}

// stop ends the nodes and removes their data. It gives what went wrong and was
// not known before. The nodes stop one after another: each can say goodbye to
// those that are left, where all at once would wait for each other in vain.
func (d *demoNodes) stop() error {
	known := d.failure()
	for _, c := range d.clients {
		c.Close()
	}
	for _, stop := range slices.Backward(d.stops) {
		stop()
	}
	d.cancel()
	err := d.failure()
	if known != nil {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}
