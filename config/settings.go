package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"kvs/auth"
	"kvs/utils/duration"
)

// setting is one key. Exactly one of scalar and list is set; it checks the
// value and stores it.
type setting struct {
	name   string
	scalar func(string) error
	list   func([]string) error
}

// settings lists every key there is, bound to the fields of c.
func (c *Config) settings() []setting {
	const (
		hour = time.Hour
		day  = 24 * hour
		year = 365 * day
	)
	return []setting{
		{name: "node_id", scalar: text(&c.NodeID, checkNodeID)},
		{name: "bind_address", scalar: text(&c.BindAddress, checkHost)},
		{name: "port", scalar: number(&c.Port, 0, 65535, 1)},
		{name: "advertise_address", scalar: text(&c.AdvertiseAddress, optional(checkHostOrAddress))},
		{name: "data_dir", scalar: text(&c.DataDir, checkNotEmpty)},
		{name: "seed_nodes", list: texts(&c.SeedNodes, checkAddress)},
		{name: "read_only", scalar: boolean(&c.ReadOnly)},
		{name: "log_level", scalar: logLevel(&c.LogLevel)},

		{name: "gossip_interval_min", scalar: number(&c.GossipIntervalMin, 1, 86_400, time.Second)},
		{name: "gossip_interval_max", scalar: number(&c.GossipIntervalMax, 1, 86_400, time.Second)},
		{name: "sync_interval", scalar: number(&c.SyncInterval, 1, 604_800, time.Second)},
		{name: "catchup_interval", scalar: number(&c.CatchupInterval, 1, 604_800, time.Second)},
		{name: "bootstrap_max_age_hours", scalar: number(&c.BootstrapMaxAge, 1, 87_600, hour)},
		{name: "tombstone_grace", scalar: span(&c.TombstoneGrace, 0, year)},
		{name: "throttle_delay_ms", scalar: number(&c.ThrottleDelay, 0, 60_000, time.Millisecond)},
		{name: "fetch_delay_ms", scalar: number(&c.FetchDelay, 0, 60_000, time.Millisecond)},

		{name: "compression_level", scalar: number(&c.CompressionLevel, 1, 22, 1)},
		{name: "default_ttl", scalar: span(&c.DefaultTTL, 0, 100*year)},
		{name: "max_json_size", scalar: number(&c.MaxJSONSize, 1, 16*mb, 1)},
		{name: "sync_writes", scalar: boolean(&c.SyncWrites)},
		{name: "max_clock_skew", scalar: span(&c.MaxClockSkew, time.Millisecond, hour)},
		{name: "memory_budget_mb", scalar: number(&c.MemoryBudget, 128, mb, mb)},
		{name: "min_free_disk_mb", scalar: number(&c.MinFreeDisk, 0, 16*mb, mb)},
		{name: "revision_limit", scalar: number(&c.RevisionLimit, 0, 10_000, 1)},
		{name: "conflict_retention", scalar: span(&c.ConflictRetention, time.Minute, 100*year)},
		{name: "default_mode", scalar: mode(&c.DefaultMode)},

		{name: "auth_enabled", scalar: boolean(&c.AuthEnabled)},
		{name: "tamper_logging_enabled", scalar: boolean(&c.TamperLoggingEnabled)},
		{name: "clustering_enabled", scalar: boolean(&c.ClusteringEnabled)},
		{name: "rate_limiting_enabled", scalar: boolean(&c.RateLimitingEnabled)},
		{name: "revision_history_enabled", scalar: boolean(&c.RevisionHistoryEnabled)},
		{name: "compression_enabled", scalar: boolean(&c.CompressionEnabled)},
		{name: "backup_enabled", scalar: boolean(&c.BackupEnabled)},

		{name: "rate_limit_requests", scalar: number(&c.RateLimitRequests, 1, 1_000_000_000, 1)},
		{name: "rate_limit_window", scalar: span(&c.RateLimitWindow, time.Second, day)},
		{name: "trusted_proxies", list: texts(&c.TrustedProxies, checkNetwork)},
		{name: "max_connections", scalar: number(&c.MaxConnections, 1, 1_000_000, 1)},

		{name: "backup_schedule", scalar: text(&c.BackupSchedule, checkCron)},
		{name: "backup_path", scalar: text(&c.BackupPath, checkNotEmpty)},
		{name: "backup_retention", scalar: number(&c.BackupRetention, 1, 36_500, day)},

		{name: "cluster_secret", scalar: text(&c.ClusterSecret, optional(checkSecret))},
		{name: "cluster_secret_file", scalar: text(&c.ClusterSecretFile, nil)},
		{name: "previous_secrets", list: texts(&c.PreviousSecrets, checkSecret)},
		{name: "tls_cert_file", scalar: text(&c.TLSCertFile, nil)},
		{name: "tls_key_file", scalar: text(&c.TLSKeyFile, nil)},
		{name: "tls_ca_file", scalar: text(&c.TLSCAFile, nil)},
		{name: "allow_anonymous_read", scalar: boolean(&c.AllowAnonymousRead)},
		{name: "allow_anonymous_write", scalar: boolean(&c.AllowAnonymousWrite)},
		{name: "cors_origins", list: missingList("CORS")},

		{name: "job_worker_count", scalar: missing("0", "the job queue")},
		{name: "job_http_allow", list: missingList("the job queue")},
		{name: "job_retention", scalar: span(&c.JobRetention, 0, 100*year)},
		{name: "max_lease", scalar: span(&c.MaxLease, time.Second, day)},
	}
}

func text[T ~string](p *T, check func(T) error) func(string) error {
	return func(s string) error {
		if check != nil {
			if err := check(T(s)); err != nil {
				return err
			}
		}
		*p = T(s)
		return nil
	}
}

func texts[T ~string](p *[]T, check func(T) error) func([]string) error {
	return func(list []string) error {
		var out []T
		for i, s := range list {
			if err := check(T(s)); err != nil {
				return fmt.Errorf("item %d: %w", i+1, err)
			}
			out = append(out, T(s))
		}
		*p = out
		return nil
	}
}

func boolean(p *bool) func(string) error {
	return func(s string) error {
		switch strings.ToLower(s) {
		case "true":
			*p = true
		case "false":
			*p = false
		default:
			return fmt.Errorf("%q is not allowed: true or false", s)
		}
		return nil
	}
}

// number takes a whole number from least to most, and stores it times unit.
func number[T ~int | ~int64](p *T, least, most int64, unit T) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not allowed: a whole number from %d to %d", s, least, most)
		}
		*p = T(n) * unit
		return nil
	}
}

func span(p *time.Duration, least, most time.Duration) func(string) error {
	return func(s string) error {
		d, err := duration.Parse(s)
		if err != nil {
			return err
		}
		if d < least || d > most {
			return fmt.Errorf("%q is not allowed: a duration from %s to %s", s, least, days(most))
		}
		*p = d
		return nil
	}
}

// days shows the long bounds of durations in days, as they would be written.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.String()
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

func logLevel(p *slog.Level) func(string) error {
	return func(s string) error {
		switch strings.ToLower(s) {
		case "debug":
			*p = slog.LevelDebug
		case "info":
			*p = slog.LevelInfo
		case "warn":
			*p = slog.LevelWarn
		case "error":
			*p = slog.LevelError
		default:
			return fmt.Errorf("%q is not allowed: debug, info, warn or error", s)
		}
		return nil
	}
}

func mode(p *uint16) func(string) error {
	return func(s string) (err error) {
		m, err := auth.ParseMode(s)
		if err == nil {
			*p = m
		}
		return err
	}
}

// missing is a setting of something this version does not have.
func missing(off, what string) func(string) error {
	return func(s string) error {
		if s != off {
			return fmt.Errorf("%s is not in this version: leave it out", what)
		}
		return nil
	}
}

func missingList(what string) func([]string) error {
	return func(list []string) error {
		if len(list) > 0 {
			return fmt.Errorf("%s is not in this version: leave it out", what)
		}
		return nil
	}
}

// optional lets a check pass the empty string.
func optional[T ~string](check func(T) error) func(T) error {
	return func(s T) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

func checkNotEmpty(s string) error {
	if s == "" {
		return errors.New("it must not be empty")
	}
	return nil
}

func checkSecret(s auth.Secret) error { return s.Check("the secret") }

// maxNodeID keeps what gossip says of a node within one packet.
const maxNodeID = 64

var nodeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func checkNodeID(s string) error {
	if len(s) > maxNodeID || !nodeID.MatchString(s) {
		return fmt.Errorf("%q is not allowed: 1 to %d letters, digits, dots, dashes and underscores, "+
			"a letter or digit first", s, maxNodeID)
	}
	return nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)

func checkHost(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	// The length is that of a DNS name (RFC 1035).
	if len(s) > 253 || !hostName.MatchString(s) {
		return fmt.Errorf("%q is not allowed: an IP address or a host name, without a port", s)
	}
	return nil
}

func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		err = checkHost(host)
	}
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
		return fmt.Errorf(`%q is not allowed: host:port, like "10.0.0.1:8080" or "[::1]:8080"`, s)
	}
	return nil
}

func checkHostOrAddress(s string) error {
	if checkHost(s) == nil || checkAddress(s) == nil {
		return nil
	}
	return fmt.Errorf("%q is not allowed: host:port or a host alone", s)
}

func checkNetwork(s string) error {
	_, err := netip.ParseAddr(s)
	if err != nil {
		_, err = netip.ParsePrefix(s)
	}
	if err != nil {
		return fmt.Errorf(`%q is not allowed: an IP address or a network like "10.0.0.0/8"`, s)
	}
	return nil
}

func checkCron(s string) error {
	if len(strings.Fields(s)) != 5 {
		return fmt.Errorf(`%q is not allowed: five fields of cron, like "0 0 * * *"`, s)
	}
	if _, err := cron.ParseStandard(s); err != nil {
		return fmt.Errorf(`%q is not allowed: five fields of cron, like "0 0 * * *": %w`, s, err)
	}
	return nil
}
