package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"kvs/auth"
	"kvs/cluster"
	"kvs/config"
	"kvs/storage"
	"kvs/utils/certs"
	"kvs/utils/oneport"
)

// Options are what a node takes beside its configuration. The zero value is a
// node of this machine's network.
type Options struct {
	Network oneport.Network // nil: the machine's
	Version string          // shown by /health and the metrics
	Log     *slog.Logger    // nil: slog.Default
}

// Node is a running node: the store, the cluster and the HTTP server, wired.
type Node struct {
	cfg      config.Config
	log      *slog.Logger
	api      *api
	store    *storage.Store
	trust    *trust
	watches  *watches
	tls      *tlsPort         // nil: plain HTTP
	cluster  *cluster.Cluster // nil without clustering
	listener *limitListener
	http     *http.Server
	address  string // advertised

	fatal    chan error    // capacity 1: why the node must not go on
	departed chan struct{} // closed when the node has left the cluster for good
	depart   sync.Once
	down     teardown
}

// Time-outs of connections, and of the parts of a stop.
const (
	headerTimeout   = 15 * time.Second
	idleTimeout     = 3 * time.Minute
	maxHeaderBytes  = 32 << 10
	requestGrace    = 10 * time.Second
	requestPoll     = 5 * time.Millisecond
	connectionGrace = 2 * time.Second
	leaveGrace      = 10 * time.Second
	showGrace       = 2 * time.Second
)

// New opens the data directory and binds the port; nothing is answered before
// Run. A node that will not be run must be closed.
func New(cfg config.Config, o Options) (_ *Node, err error) {
	if o.Network == nil {
		o.Network = oneport.Real()
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	n := &Node{
		cfg: cfg, log: o.Log, down: teardown{log: o.Log},
		fatal: make(chan error, 1), departed: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			n.down.run() // what it has to say is less than err
		}
	}()
	if n.trust, err = newTrust(cfg, o.Log); err != nil {
		return nil, err
	}
	if n.tls, err = newTLSPort(certs.Files{Cert: cfg.TLSCertFile, Key: cfg.TLSKeyFile, CA: cfg.TLSCAFile}, o.Log); err != nil {
		return nil, err
	}
	so := storeOptions(cfg, o.Log)
	n.watches = newWatches(o.Log)
	so.Hooks = append(so.Hooks, n.trust.hooks()...)
	so.Hooks = append(so.Hooks, n.watches.hub.Hook())
	if n.store, err = storage.Open(so); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.DataDir, err)
	}
	n.down.push("close the store", n.store.Close)
	if err := errors.Join(n.trust.start(context.Background(), n.store), n.watches.start(context.Background(), n.store)); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.DataDir, err)
	}

	ln, packets, err := o.Network.Listen(bindAddress(cfg))
	if err != nil {
		return nil, fmt.Errorf("listen on %s (bind_address, port), for TCP and UDP: %w", bindAddress(cfg), err)
	}
	n.listener = newLimitListener(ln, cfg.MaxConnections)
	n.listener.port = n.tls
	n.down.push("close the port", func() error {
		return errors.Join(unlessClosed(n.listener.Close()), unlessClosed(packets.Close()))
	})
	if n.address, err = advertised(cfg, ln.Addr()); err != nil {
		return nil, err
	}
	n.api = newAPI(cfg, n.store, n.trust, n.watches, o)
	n.api.leave = n.stopDeparted
	n.api.port = n.tls
	dial := n.tls.dial(o.Network.DialContext)
	if cfg.ClusteringEnabled {
		n.tls.warnHost(n.address)
		if err := n.joinUp(dial, packets); err != nil {
			return nil, err
		}
	} else {
		n.api.peers = alone{api: n.api, address: n.address, mode: modeOf(cfg)}
	}
	n.api.forward = newForwarder(n.store.Identity().UUID.String(), dial)
	n.down.push("close forwarding connections", func() error { n.api.forward.close(); return nil })
	n.api.metrics.registry.MustRegister(&collector{n.api, n.listener})
	if n.api.backups, err = newBackups(n.api, cfg, o); err != nil {
		return nil, err
	}
	n.api.mux = n.api.routes()
	n.http = newHTTPServer(n.api, o.Log)
	return n, nil
}

// newAPI makes the part of a node that answers, still without its peers.
func newAPI(cfg config.Config, store *storage.Store, t *trust, watches *watches, o Options) *api {
	tokens := auth.NewClientTokens(auth.ClientTokensOptions{Keys: t.keys})
	a := &api{
		store: store, watches: watches, log: o.Log, metrics: newMetrics(),
		gate: t.gate(cfg, tokens), tokens: tokens, people: t.people, audit: t.audit,
		nodeID: cfg.NodeID, version: o.Version, started: time.Now(),
		clustered: cfg.ClusteringEnabled, revisionLimit: revisionLimit(cfg),
		searching: make(chan struct{}, maxSearches),
		maxValue:  cfg.MaxJSONSize, defaultTTL: cfg.DefaultTTL, bodyGrace: bodyGrace,
	}
	watches.api = a
	return a
}

func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// OPTIONS * too gets a problem document.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	followConns(s)
	return s
}

// Addr is the address that the node listens on.
func (n *Node) Addr() string { return n.listener.Addr().String() }

// Address is the address by which other nodes reach this one.
func (n *Node) Address() string { return n.address }

// Run serves until ctx ends, the node leaves the cluster, or it must not go on:
// then the error says why. It stops in order: requests end, what they wrote is
// pushed, the gossip is left, and the store is closed.
func (n *Node) Run(ctx context.Context) error {
	// Pushes and gossip outlive ctx: its end is what begins the orderly stop.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan error, 3)
	var wg sync.WaitGroup
	if n.cluster != nil {
		wg.Go(func() { ended <- wrap("cluster", n.cluster.Run(run)) })
	}
	wg.Go(func() { n.tls.watchExpiry(run) })
	wg.Go(func() { ended <- wrap("watches", n.watches.hub.Run(run)) })
	served := make(chan error, 1)
	go func() { served <- n.http.Serve(n.listener) }()
	n.down.push("close the connections", func() error { return n.closeConnections(served) })
	n.down.push("stop the cluster", func() error { cancel(); wg.Wait(); return nil })
	gossips := n.cluster != nil
	n.down.push("push what is outstanding and leave the gossip", func() error {
		if gossips {
			n.sayGoodbye()
		}
		return nil
	})
	noting, enough := context.WithCancel(run)
	noted := make(chan error, 1)
	go func() { noted <- n.trust.audit.run(noting, n.asker()) }()
	n.down.push("end the tamper log", func() error {
		enough()
		return errors.Join(<-noted, n.showLast())
	})
	n.down.push("end the requests", n.endRequests)
	scheduled := make(chan error, 1)
	go func() { scheduled <- n.api.backups.run(run) }()
	// First, since a backup may take longer than a stop waits for requests.
	n.down.push("end the backup", func() error { return errors.Join(n.api.backups.close(), <-scheduled) })
	n.sayStarted()

	var why error
	select {
	case <-ctx.Done():
		n.log.Info("stopping")
	case <-n.departed:
		n.log.Info("stopping: this node has left the cluster for good")
		gossips = false
	case why = <-n.fatal:
		n.log.Error("stopping", "error", why)
		// Saying goodbye would be in the name of whoever has the identity.
		gossips = false
	case why = <-ended:
		gossips = false
	case why = <-served:
		served <- why
	}
	if err := n.down.run(); why == nil {
		why = err
	}
	n.log.Info("stopped")
	return why
}

// endRequests takes no new request of a client and waits for those that are
// being answered. Other nodes are still answered: of two that stop together,
// each may have something to push to the other.
func (n *Node) endRequests() error {
	n.api.stopping.Store(true)
	n.watches.end() // they would not end by themselves
	for end := time.Now().Add(requestGrace); n.api.inFlight.Load() > 0; time.Sleep(requestPoll) {
		if time.Now().After(end) {
			return fmt.Errorf("%d requests were cut off after %s", n.api.inFlight.Load(), requestGrace)
		}
	}
	return nil
}

// sayGoodbye pushes what is outstanding and leaves the gossip. What could not be
// pushed is on disk, and is pushed after the next start: no failure of the stop.
func (n *Node) sayGoodbye() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveGrace)
	defer cancel()
	if err := n.cluster.Leave(ctx); err != nil {
		n.log.Warn("not everything could be pushed before the stop; it is kept, and pushed after the next start", "error", err)
	}
}

// asker is the way to the other nodes, nil without a cluster.
func (n *Node) asker() asker {
	if n.cluster == nil {
		return nil
	}
	return n.cluster
}

// showLast shows the peers where the tamper log ends, so that nothing of it is
// left unwitnessed while the node is off.
func (n *Node) showLast() error {
	if n.cluster == nil || n.trust.audit.log == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), showGrace)
	defer cancel()
	n.trust.audit.show(ctx, n.cluster)
	return nil
}

// closeConnections ends the listener and all connections.
func (n *Node) closeConnections(served chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectionGrace)
	defer cancel()
	if n.http.Shutdown(ctx) != nil {
		n.http.Close() // a call of another node, which tries again
	}
	<-served
	return nil
}

// Close releases a node that was not run.
func (n *Node) Close() error { return n.down.run() }

// stopDeparted ends Run after the node has left the cluster for good.
func (n *Node) stopDeparted() { n.depart.Do(func() { close(n.departed) }) }

// stopFatal ends Run with an error; the first one counts.
func (n *Node) stopFatal(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func unlessClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
