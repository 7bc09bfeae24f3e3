package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kvs/types"
)

// collector reads, when the metrics are asked for, what the store, the cluster
// and the listener count anyway.
type collector struct {
	api   *api
	conns *limitListener
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("kvs_"+name, help, labels, nil)
}

var (
	descInfo        = desc("info", "Always 1; says which node and version this is.", "node_id", "uuid", "version")
	descMode        = desc("mode", "1 for the mode that the node is in.", "mode")
	descConns       = desc("connections", "Open connections.")
	descConnsMost   = desc("connections_max", "Connections that are taken (max_connections).")
	descRefused     = desc("connections_refused_total", "Connections refused because there were too many.")
	descRecords     = desc("records", "Records held, tombstones and the store's own included.")
	descSequence    = desc("sequence", "Newest durable commit.")
	descCommits     = desc("commits_total", "Commits made.")
	descConflicts   = desc("conflicts_total", "Versions that lost a conflict and were kept.")
	descCorrupt     = desc("corrupt_reads_total", "Reads of damaged records.")
	descRepaired    = desc("repaired_records_total", "Damaged records replaced.")
	descScrubbed    = desc("scrub_buckets_total", "Merkle buckets in which the scrub found records damaged or lost.")
	descDiskFree    = desc("disk_free_bytes", "Bytes free where the data directory is.")
	descDiskUsed    = desc("disk_used_bytes", "Bytes of the database's files.")
	descDiskFull    = desc("disk_full", "1 while writes are refused for want of disk space.")
	descBackups     = desc("backups_total", "Backups made.")
	descBackupFails = desc("backup_failures_total", "Backups that failed.")
	descBackupLast  = desc("backup_last_seconds", "Unix time of the newest backup made since the start; 0 if none.")
	descBackupBytes = desc("backup_last_bytes", "Size of that backup.")
	descHorizon     = desc("horizon_seconds", "Unix time up to which garbage is forgotten; 0 if none is.")
	descMembers     = desc("members", "Members of the roster, by state.", "state")
	descAhead       = desc("clock_ahead_seconds", "How far this clock is ahead of the median of its peers.")
	descPushed      = desc("pushed_records_total", "Records pushed to peers.")
	descPushedBytes = desc("pushed_bytes_total", "Bytes of pushes sent.")
	descReceived    = desc("received_records_total", "Records received from peers.")
	descRounds      = desc("sync_rounds_total", "Comparisons with a peer.")
	descMoved       = desc("sync_moved_records_total", "Records that comparisons moved, in either direction.")
	descSyncBytes   = desc("sync_bytes_total", "Bytes of comparisons, sent and received.")
	descSyncFailed  = desc("sync_failures_total", "Comparisons that failed.")
	descSent        = desc("node_sent_bytes_total", "Bytes sent to other nodes, on the wire.")
	descGot         = desc("node_received_bytes_total", "Bytes received from other nodes, on the wire.")
	descPeerBehind  = desc("peer_behind_commits", "Commits of this node that a peer has not acknowledged.", "peer")
	descPeerSync    = desc("peer_last_sync_seconds", "Unix time of the last completed comparison with a peer; 0 if none.", "peer")
	descBootDone    = desc("bootstrap_records", "Records received while the node is filled from a peer.")
	descBootTotal   = desc("bootstrap_records_expected", "Records expected while the node is filled from a peer.")
)

// memberStates and modes are shown even where no node is in them.
var (
	memberStates = []string{"alive", "failed", "left"}
	modes        = []types.Mode{types.ModeNormal, types.ModeReadOnly, types.ModeSyncing}
)

// Describe gives nothing, which leaves it to Collect which series there are: the
// peers' come and go.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	a := c.api
	gauge(descInfo, 1, a.nodeID, a.store.Identity().UUID.String(), a.version)
	mode := a.peers.Mode()
	for _, m := range modes {
		gauge(descMode, oneIf(m == mode), string(m))
	}
	gauge(descConns, float64(c.conns.open.Load()))
	gauge(descConnsMost, float64(c.conns.most))
	count(descRefused, c.conns.refused.Load())

	st := a.store.Stats()
	gauge(descRecords, float64(st.Records))
	gauge(descSequence, float64(a.store.Seq()))
	count(descCommits, st.Commits)
	count(descConflicts, st.Conflicts)
	count(descCorrupt, st.Corrupt)
	count(descRepaired, st.Repaired)
	count(descScrubbed, st.Scrubbed)
	gauge(descDiskFree, float64(st.FreeDisk))
	gauge(descDiskUsed, float64(st.DiskBytes))
	gauge(descDiskFull, oneIf(st.DiskFull))
	gauge(descHorizon, float64(a.store.Horizon())/1000)
	b := a.backups.stats()
	count(descBackups, b.Made)
	count(descBackupFails, b.Failed)
	gauge(descBackupLast, float64(b.LastAt)/1000)
	gauge(descBackupBytes, float64(b.LastSize))
	c.collectCluster(gauge, count)
	c.collectTrust(gauge, count)
	a.watches.collect(gauge, count)
}

func (c *collector) collectCluster(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64)) {
	p := c.api.peers
	states := make(map[string]int)
	for _, m := range p.Members() {
		states[m.State]++
	}
	for _, state := range memberStates {
		gauge(descMembers, float64(states[state]), state)
	}
	ahead, _ := p.Skewed()
	gauge(descAhead, float64(ahead)/float64(time.Second))
	st := p.Status()
	count(descPushed, st.PushedRecords)
	count(descPushedBytes, st.PushBytes)
	count(descReceived, st.ReceivedRecords)
	count(descRounds, st.SyncRounds)
	count(descMoved, st.SyncMoved)
	count(descSyncBytes, st.SyncBytes)
	count(descSyncFailed, st.SyncFailures)
	count(descSent, st.SentBytes)
	count(descGot, st.ReceivedBytes)
	for _, peer := range st.Peers {
		gauge(descPeerBehind, float64(peer.Behind), peer.NodeID)
		gauge(descPeerSync, float64(peer.LastSync)/1000, peer.NodeID)
	}
	done, total := p.Progress()
	gauge(descBootDone, float64(done))
	gauge(descBootTotal, float64(total))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
