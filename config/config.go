// Package config reads the configuration: a YAML file, then the environment,
// over the defaults.
//
// Invariants:
//   - Whatever Load accepts is valid, in itself and together; nothing unknown,
//     misspelt or out of range is passed over. Every mistake is reported, with
//     where it stands and what is allowed.
//   - A setting that asks for something this version does not have is refused:
//     nothing pretends.
//
// It does not read the secret files or look at the network and the disk; who
// uses a setting finds out whether it can be had.
package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"kvs/auth"
)

// Config is the configuration of a node. A comment names a field's key where it
// does not follow from the field's name. Sizes are in bytes.
type Config struct {
	NodeID           string // unique in the cluster; default: the host's name, with -NAME for a file NAME.yaml other than config.yaml
	BindAddress      string
	Port             int    // of HTTP, gossip and sync; 0: any that is free
	AdvertiseAddress string // host:port at which other nodes reach this one; "": found out
	DataDir          string // default: ./data, with -NAME for a file NAME.yaml other than config.yaml
	SeedNodes        []string
	ReadOnly         bool
	LogLevel         slog.Level

	GossipIntervalMin time.Duration
	GossipIntervalMax time.Duration
	SyncInterval      time.Duration
	CatchupInterval   time.Duration
	BootstrapMaxAge   time.Duration // bootstrap_max_age_hours
	TombstoneGrace    time.Duration
	ThrottleDelay     time.Duration // throttle_delay_ms
	FetchDelay        time.Duration // fetch_delay_ms

	CompressionLevel  int
	DefaultTTL        time.Duration // 0: values do not expire
	MaxJSONSize       int64
	SyncWrites        bool
	MaxClockSkew      time.Duration
	MemoryBudget      int64 // memory_budget_mb
	MinFreeDisk       int64 // min_free_disk_mb
	RevisionLimit     int
	ConflictRetention time.Duration
	DefaultMode       uint16 // as auth.ParseMode gives it

	AuthEnabled            bool
	TamperLoggingEnabled   bool
	ClusteringEnabled      bool
	RateLimitingEnabled    bool
	RevisionHistoryEnabled bool
	CompressionEnabled     bool
	BackupEnabled          bool

	RateLimitRequests int
	RateLimitWindow   time.Duration
	TrustedProxies    []string
	MaxConnections    int

	BackupSchedule  string
	BackupPath      string
	BackupRetention time.Duration

	ClusterSecret     auth.Secret // at most one of this and the file is set; neither: the automatic file
	ClusterSecretFile string
	PreviousSecrets   []auth.Secret

	TLSCertFile         string // this and the key: both or neither; without them, no TLS
	TLSKeyFile          string
	TLSCAFile           string // whose certificates other nodes must have
	AllowAnonymousRead  bool
	AllowAnonymousWrite bool

	JobRetention time.Duration
	MaxLease     time.Duration
}

const mb = 1 << 20

// Default gives the defaults. NodeID and DataDir, which depend on the host and
// the file, are empty; Load fills them in.
func Default() Config {
	const day = 24 * time.Hour
	return Config{
		BindAddress: "127.0.0.1",
		Port:        8080,
		LogLevel:    slog.LevelInfo,

		GossipIntervalMin: 60 * time.Second,
		GossipIntervalMax: 120 * time.Second,
		SyncInterval:      300 * time.Second,
		CatchupInterval:   120 * time.Second,
		BootstrapMaxAge:   720 * time.Hour,
		TombstoneGrace:    time.Hour,
		ThrottleDelay:     100 * time.Millisecond,
		FetchDelay:        50 * time.Millisecond,

		CompressionLevel:  3,
		MaxJSONSize:       mb,
		SyncWrites:        true,
		MaxClockSkew:      5 * time.Second,
		MemoryBudget:      256 * mb,
		MinFreeDisk:       512 * mb,
		RevisionLimit:     10,
		ConflictRetention: 30 * day,
		DefaultMode:       0b1111_0011_0001, // cdwr:--wr:---r

		AuthEnabled:            true,
		TamperLoggingEnabled:   true,
		ClusteringEnabled:      true,
		RateLimitingEnabled:    true,
		RevisionHistoryEnabled: true,
		CompressionEnabled:     true,
		BackupEnabled:          true,

		RateLimitRequests: 100_000,
		RateLimitWindow:   time.Minute,
		MaxConnections:    10_000,

		BackupSchedule:  "0 0 * * *",
		BackupPath:      "./backups",
		BackupRetention: 7 * day,

		JobRetention: 7 * day,
		MaxLease:     time.Hour,
	}
}

// Load reads the configuration file at path, or none if path is empty, and then
// the KVS_ variables of env, which has the form of os.Environ.
func Load(path string, env []string) (Config, error) {
	c := Default()
	var problems []error
	if path != "" {
		b, err := readFile(path)
		if err != nil {
			return Config{}, err
		}
		problems = append(problems, c.applyFile(path, b)...)
	}
	problems = append(problems, c.applyEnv(env)...)
	// Checks of settings together make no sense of settings that are wrong.
	if len(problems) == 0 {
		problems = c.complete(path)
	}
	if len(problems) > 0 {
		return Config{}, errors.Join(problems...)
	}
	return c, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mb+1))
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	if len(b) > mb {
		return nil, fmt.Errorf("configuration file %s is larger than %d bytes", path, mb)
	}
	return b, nil
}

// complete fills in what depends on other settings, and checks what has to fit
// together.
func (c *Config) complete(path string) (problems []error) {
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	// Several nodes may start from one directory, each with a file of its own: so
	// the file's name keeps their identities and data apart.
	suffix := ""
	if name := filepath.Base(path); path != "" && name != "config.yaml" {
		suffix = "-" + strings.TrimSuffix(strings.TrimSuffix(name, ".yaml"), ".yml")
	}
	if c.DataDir == "" {
		c.DataDir = "./data" + suffix
	}
	if c.NodeID == "" {
		host, err := os.Hostname()
		if err == nil {
			c.NodeID = host + suffix
			err = checkNodeID(c.NodeID)
		}
		if err != nil {
			refuse("no node_id can be made of the host's name, set it: %w", err)
		}
	}
	if c.AdvertiseAddress != "" {
		if _, _, err := net.SplitHostPort(c.AdvertiseAddress); err != nil {
			if c.Port == 0 {
				refuse("advertise_address: %q needs a port where port is 0", c.AdvertiseAddress)
			}
			c.AdvertiseAddress = net.JoinHostPort(c.AdvertiseAddress, strconv.Itoa(c.Port))
		}
	}
	if c.GossipIntervalMin > c.GossipIntervalMax {
		refuse("gossip_interval_min (%d) is greater than gossip_interval_max (%d)",
			c.GossipIntervalMin/time.Second, c.GossipIntervalMax/time.Second)
	}
	if c.ClusterSecret != "" && c.ClusterSecretFile != "" {
		refuse("both cluster_secret and cluster_secret_file are set: remove one")
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		refuse("tls_cert_file and tls_key_file belong together: set both, or neither for no TLS")
	}
	if c.TLSCAFile != "" && c.TLSCertFile == "" {
		refuse("tls_ca_file says whose certificates other nodes must have, and without tls_cert_file and tls_key_file there is no TLS")
	}
	return problems
}
