package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"kvs/auth"
	"kvs/cluster"
	"kvs/config"
	"kvs/features/backup"
	"kvs/features/revisions"
	"kvs/storage"
	"kvs/types"
)

// storeOptions maps the configuration onto the store's.
func storeOptions(cfg config.Config, log *slog.Logger) storage.Options {
	o := storage.Options{
		Dir:               cfg.DataDir,
		SyncWrites:        cfg.SyncWrites,
		MemoryBudget:      cfg.MemoryBudget,
		Compression:       cfg.CompressionEnabled,
		CompressionLevel:  cfg.CompressionLevel,
		MaxClockSkew:      cfg.MaxClockSkew,
		MinFreeDisk:       cfg.MinFreeDisk,
		ConflictRetention: cfg.ConflictRetention,
		TombstoneGrace:    cfg.TombstoneGrace,
		DefaultMeta:       types.Meta{Owner: "root", Group: "root", Mode: cfg.DefaultMode},
		Log:               log,
	}
	if limit := revisionLimit(cfg); limit > 0 {
		o.RevisionLimit = limit
		o.Hooks = append(o.Hooks, revisions.NewHook(limit))
	}
	if cfg.BackupEnabled {
		o.Hooks = append(o.Hooks, backup.Hook{})
	}
	return o
}

// revisionLimit is how many overwritten versions of a key are kept, 0 for none.
func revisionLimit(cfg config.Config) int {
	if !cfg.RevisionHistoryEnabled {
		return 0
	}
	return cfg.RevisionLimit
}

// joinUp makes the cluster's side of the node.
func (n *Node) joinUp(dial dialFunc, packets net.PacketConn) error {
	keys, id := n.trust.keys, n.store.Identity()
	tokens := auth.NewNodeTokens(auth.NodeTokensOptions{Keys: keys, Node: id.UUID, MaxClockSkew: n.cfg.MaxClockSkew})
	var err error
	n.cluster, err = cluster.New(cluster.Options{
		UUID:               id.UUID,
		NodeID:             n.cfg.NodeID,
		Joined:             id.Joined,
		Address:            n.address,
		Seeds:              n.cfg.SeedNodes,
		ReadOnly:           n.cfg.ReadOnly,
		Packets:            packets,
		Dial:               dial,
		GossipKey:          keys.Gossip,
		PreviousGossipKeys: keys.PreviousGossip,
		Authorize:          tokens.Authorize,
		Authenticate:       tokens.Caller,
		Calls:              map[string]cluster.Call{witnessCall: n.trust.audit.take},
		GossipMin:          n.cfg.GossipIntervalMin,
		GossipMax:          n.cfg.GossipIntervalMax,
		SyncInterval:       n.cfg.SyncInterval,
		CatchupInterval:    n.cfg.CatchupInterval,
		BootstrapMaxAge:    n.cfg.BootstrapMaxAge,
		ThrottleDelay:      n.cfg.ThrottleDelay,
		FetchDelay:         n.cfg.FetchDelay,
		MaxClockSkew:       n.cfg.MaxClockSkew,
		Store:              n.store,
		Put:                n.putOwn,
		Fatal:              n.stopFatal,
		Log:                n.log,
	})
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	n.api.peers = n.cluster
	return nil
}

// putOwn writes a record of the node itself, such as its roster entry.
func (n *Node) putOwn(ctx context.Context, ref types.Ref, value []byte) error {
	results, err := n.store.Write(ctx, []storage.Op{{Kind: storage.OpPut, Ref: ref, Value: value, OverDamaged: true}}, false)
	if err != nil {
		return err
	}
	return results[0].Err
}

func modeOf(cfg config.Config) types.Mode {
	if cfg.ReadOnly {
		return types.ModeReadOnly
	}
	return types.ModeNormal
}

func bindAddress(cfg config.Config) string {
	return net.JoinHostPort(cfg.BindAddress, strconv.Itoa(cfg.Port))
}

// advertised is the address that other nodes are told. A node that listens on
// every address has to pick one.
func advertised(cfg config.Config, bound net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return "", fmt.Errorf("the listening address %s: %w", bound, err)
	}
	if cfg.AdvertiseAddress != "" {
		return cfg.AdvertiseAddress, nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = outwardIP()
	}
	return net.JoinHostPort(host, port), nil
}

// outwardIP is this machine's first address that others may reach.
func outwardIP() string {
	addrs, _ := net.InterfaceAddrs() // without any, loopback is all there is
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			return ip.IP.String()
		}
	}
	return "127.0.0.1"
}

// hostPort reports whether s is host:port.
func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// warnExposed says loudly what is only good on one's own machine.
func (n *Node) warnExposed() {
	if ip := net.ParseIP(n.cfg.BindAddress); n.cfg.BindAddress == "localhost" || ip != nil && ip.IsLoopback() {
		return
	}
	if n.trust.secrets.Automatic {
		n.log.Warn("this node listens beyond this machine with the automatic cluster secret, which nodes elsewhere do not have; "+
			"make one with `kvs secret new` and set cluster_secret or cluster_secret_file on every node", "bind_address", n.cfg.BindAddress, "file", n.trust.secrets.File)
	}
	if !n.cfg.AuthEnabled {
		n.log.Warn("this node listens beyond this machine, and anybody who reaches it may read and write: clients are not authenticated; "+
			"set auth_enabled, or bind it to 127.0.0.1", "bind_address", n.cfg.BindAddress)
	}
	if n.cfg.TLSCertFile == "" {
		n.log.Warn("this node listens beyond this machine without TLS: whoever can read the network sees data and tokens; "+
			"`kvs tls init` makes certificates (tls_cert_file, tls_key_file, tls_ca_file)", "bind_address", n.cfg.BindAddress)
	}
}

// sayStarted tells people where the node is.
func (n *Node) sayStarted() {
	id := n.store.Identity()
	n.log.Info("serving", "url", n.tls.scheme()+"://"+n.address, "listening", n.Addr(), "node_id", n.cfg.NodeID,
		"uuid", id.UUID.String(), "joined", time.UnixMilli(id.Joined).UTC().Format(time.RFC3339), "data_dir", n.cfg.DataDir,
		"clustering", n.cfg.ClusteringEnabled)
	n.warnExposed()
}
