package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// build compiles the node, and makes a token for it.
func (b *bench) build(ctx context.Context) error {
	b.binary = filepath.Join(b.dir, "kvs")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", b.binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build (run from the top of the project): %w\n%s", err, out)
	}
	cmd = exec.CommandContext(ctx, b.binary, "token", "create", "--scope", "admin")
	cmd.Env = append(os.Environ(), "KVS_CLUSTER_SECRET="+benchSecret)
	token, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("kvs token create: %w", err)
	}
	b.token = strings.TrimSpace(string(token))
	return nil
}

// benchSecret is that of all nodes of a run, which are open to loopback only.
var benchSecret = strings.Repeat("b", 32)

// node is a running process of the store.
type node struct {
	name, addr, dir string
	token           string // of the admin scope
	config          string
	cmd             *exec.Cmd
	log             string
}

// newNode prepares a node on a free port; seeds are addresses of others, more
// are further lines of its configuration.
func (b *bench) newNode(name string, seeds []string, more ...string) (*node, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	n := &node{
		name: name, addr: "127.0.0.1:" + strconv.Itoa(port), token: b.token,
		dir: filepath.Join(b.dir, "data-"+name), config: filepath.Join(b.dir, name+".yaml"), log: filepath.Join(b.dir, name+".log"),
	}
	list, err := json.Marshal(append([]string{}, seeds...))
	if err != nil {
		return nil, err
	}
	lines := append([]string{
		"node_id: " + name, "port: " + strconv.Itoa(port), "data_dir: " + n.dir, "seed_nodes: " + string(list),
		"min_free_disk_mb: 64", "cluster_secret: " + benchSecret, "log_level: warn", "max_connections: 1000",
		// Limits are counted and never reached.
		"rate_limit_requests: 1000000000",
	}, more...)
	return n, os.WriteFile(n.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// start starts the process and gives the time until it serves.
func (n *node) start(ctx context.Context, binary string) (time.Duration, error) {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	n.cmd = exec.CommandContext(ctx, binary, n.config)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	begin := time.Now()
	if err := n.cmd.Start(); err != nil {
		return 0, err
	}
	err = n.until(ctx, time.Minute, func() (bool, error) {
		_, err := n.get("/health")
		return err == nil, nil
	})
	return time.Since(begin), err
}

// until polls a condition.
func (n *node) until(ctx context.Context, limit time.Duration, fn func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := fn()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			tail, _ := os.ReadFile(n.log)
			return fmt.Errorf("%s: not within %v; its log:\n%s", n.name, limit, tail[max(0, len(tail)-2000):])
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stop ends the process by SIGTERM.
func (n *node) stop() error {
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	err := n.cmd.Wait()
	n.cmd = nil
	return err
}

func (n *node) get(path string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+n.addr+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+n.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s: %s", n.addr, path, res.Status, b)
	}
	return b, err
}

// root gives the Merkle root and the number of records under it.
func (n *node) root() (root string, count int, err error) {
	b, err := n.get("/sync/merkle/root")
	if err != nil {
		return "", 0, err
	}
	var v struct {
		Root  string `json:"root"`
		Count int    `json:"count"`
	}
	err = json.Unmarshal(b, &v)
	return v.Root, v.Count, err
}

// formed waits until the node sees so many members.
func (n *node) formed(ctx context.Context, members int) error {
	return n.until(ctx, time.Minute, func() (bool, error) {
		b, err := n.get("/health")
		if err != nil {
			return false, nil
		}
		var v struct {
			MemberCount int `json:"member_count"`
		}
		err = json.Unmarshal(b, &v)
		return v.MemberCount == members, err
	})
}

// equalRoots waits until all nodes have the first one's root, with at least so
// many records under it.
func equalRoots(ctx context.Context, nodes []*node, records int, limit time.Duration) error {
	return nodes[0].until(ctx, limit, func() (bool, error) {
		first, count, err := nodes[0].root()
		if err != nil || count < records {
			return false, err
		}
		for _, n := range nodes[1:] {
			if root, _, err := n.root(); err != nil || root != first {
				return false, err
			}
		}
		return true, nil
	})
}

// metric sums the samples of a metric of /metrics.
func (n *node) metric(name string) (sum float64, err error) {
	b, err := n.get("/metrics")
	if err != nil {
		return 0, err
	}
	found := false
	for line := range strings.Lines(string(b)) {
		head, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		metric, _, _ := strings.Cut(head, "{")
		if !ok || metric != name {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("%s has no metric %s", n.name, name)
	}
	return sum, nil
}

// memory gives the resident memory of the process without mapped files, and
// with them, in bytes.
func (n *node) memory() (anonymous, resident int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kb, _ := strconv.Atoi(fields[1])
		switch fields[0] {
		case "RssAnon:":
			anonymous = kb << 10
		case "VmRSS:":
			resident = kb << 10
		}
	}
	return anonymous, resident, nil
}

// diskUse sums the blocks that the data directory takes: Badger's logs are
// mostly holes.
func (n *node) diskUse() (int64, error) {
	var sum int64
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it went while we looked
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
	}
	return sum, nil
}
