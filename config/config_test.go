package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kvs/auth"
)

const repository = "../config.yaml"

// load reads text as a file of that name.
func load(t *testing.T, name, text string, env ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, env)
}

func TestDefaultFileIsTheDefaults(t *testing.T) {
	want, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load(repository, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("config.yaml gives\n%+v, the defaults are\n%+v", got, want)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want.NodeID, want.DataDir = "", ""
	if got.NodeID != host || got.DataDir != "./data" || !reflect.DeepEqual(want, Default()) {
		t.Errorf("node_id %q, data_dir %q, or another difference from Default", got.NodeID, got.DataDir)
	}
}

// The default file shows every setting that does something, and no other.
func TestDefaultFileIsComplete(t *testing.T) {
	b, err := os.ReadFile(repository)
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, m := range regexp.MustCompile(`(?m)^(?:# )?([a-z_]+):(?: |$)`).FindAllStringSubmatch(string(b), -1) {
		shown = append(shown, m[1])
	}
	notBuilt := []string{
		"cors_origins", "job_worker_count", "job_http_allow", "job_retention", "max_lease",
	}
	for _, s := range new(Config).settings() {
		if slices.Contains(shown, s.name) == slices.Contains(notBuilt, s.name) {
			t.Errorf("%s: shown in config.yaml: %v", s.name, slices.Contains(shown, s.name))
		}
	}
}

func TestEverySettingIsAppliedFromFileAndEnvironment(t *testing.T) {
	secret := strings.Repeat("s", 32)
	values := map[string]struct {
		value string // as in the environment; lists comma-separated
		field string
		want  any
	}{
		"node_id":                  {"n-1.x", "NodeID", "n-1.x"},
		"bind_address":             {"0.0.0.0", "BindAddress", "0.0.0.0"},
		"port":                     {"0", "Port", 0},
		"advertise_address":        {"[fe80::1]:99", "AdvertiseAddress", "[fe80::1]:99"},
		"data_dir":                 {"/var/lib/kvs", "DataDir", "/var/lib/kvs"},
		"seed_nodes":               {"a.example:1,[::1]:65535", "SeedNodes", []string{"a.example:1", "[::1]:65535"}},
		"read_only":                {"true", "ReadOnly", true},
		"log_level":                {"debug", "LogLevel", slog.LevelDebug},
		"gossip_interval_min":      {"1", "GossipIntervalMin", time.Second},
		"gossip_interval_max":      {"61", "GossipIntervalMax", 61 * time.Second},
		"sync_interval":            {"5", "SyncInterval", 5 * time.Second},
		"catchup_interval":         {"6", "CatchupInterval", 6 * time.Second},
		"bootstrap_max_age_hours":  {"24", "BootstrapMaxAge", 24 * time.Hour},
		"tombstone_grace":          {"2d", "TombstoneGrace", 48 * time.Hour},
		"throttle_delay_ms":        {"0", "ThrottleDelay", time.Duration(0)},
		"fetch_delay_ms":           {"7", "FetchDelay", 7 * time.Millisecond},
		"compression_level":        {"9", "CompressionLevel", 9},
		"default_ttl":              {"1d12h", "DefaultTTL", 36 * time.Hour},
		"max_json_size":            {"2048", "MaxJSONSize", int64(2048)},
		"sync_writes":              {"false", "SyncWrites", false},
		"max_clock_skew":           {"10s", "MaxClockSkew", 10 * time.Second},
		"memory_budget_mb":         {"640", "MemoryBudget", int64(640 << 20)},
		"min_free_disk_mb":         {"0", "MinFreeDisk", int64(0)},
		"revision_limit":           {"0", "RevisionLimit", 0},
		"conflict_retention":       {"1h", "ConflictRetention", time.Hour},
		"default_mode":             {"cdwr:----:----", "DefaultMode", uint16(0xf00)},
		"auth_enabled":             {"false", "AuthEnabled", false},
		"tamper_logging_enabled":   {"false", "TamperLoggingEnabled", false},
		"clustering_enabled":       {"false", "ClusteringEnabled", false},
		"rate_limiting_enabled":    {"false", "RateLimitingEnabled", false},
		"revision_history_enabled": {"false", "RevisionHistoryEnabled", false},
		"compression_enabled":      {"False", "CompressionEnabled", false},
		"backup_enabled":           {"false", "BackupEnabled", false},
		"rate_limit_requests":      {"5", "RateLimitRequests", 5},
		"rate_limit_window":        {"1s", "RateLimitWindow", time.Second},
		"trusted_proxies":          {"10.0.0.0/8,::1", "TrustedProxies", []string{"10.0.0.0/8", "::1"}},
		"max_connections":          {"50", "MaxConnections", 50},
		"backup_schedule":          {"*/5 * * * *", "BackupSchedule", "*/5 * * * *"},
		"backup_path":              {"/b", "BackupPath", "/b"},
		"backup_retention":         {"1", "BackupRetention", 24 * time.Hour},
		"allow_anonymous_read":     {"true", "AllowAnonymousRead", true},
		"allow_anonymous_write":    {"true", "AllowAnonymousWrite", true},
		"cluster_secret":           {secret, "ClusterSecret", auth.Secret(secret)},
		"cluster_secret_file":      {"/s", "ClusterSecretFile", "/s"},
		"previous_secrets":         {secret, "PreviousSecrets", []auth.Secret{auth.Secret(secret)}},
		"job_retention":            {"1d", "JobRetention", 24 * time.Hour},
		"max_lease":                {"2h", "MaxLease", 2 * time.Hour},
		"tls_cert_file":            {"/c.pem", "TLSCertFile", "/c.pem"},
		"tls_key_file":             {"/k.pem", "TLSKeyFile", "/k.pem"},
		"tls_ca_file":              {"/ca.pem", "TLSCAFile", "/ca.pem"},
		// What only its absence is accepted of has no field.
		"cors_origins":     {},
		"job_worker_count": {value: "0"},
		"job_http_allow":   {},
	}
	// What is only accepted together.
	beside := map[string]map[string]string{
		"tls_cert_file": {"tls_key_file": "k"},
		"tls_key_file":  {"tls_cert_file": "c"},
		"tls_ca_file":   {"tls_cert_file": "c", "tls_key_file": "k"},
	}
	fields := map[string]bool{}
	for _, s := range new(Config).settings() {
		v, ok := values[s.name]
		if !ok {
			t.Errorf("%s is not tested", s.name)
			continue
		}
		text := fmt.Sprintf("%s: %q\n", s.name, v.value)
		if s.list != nil {
			var items []string
			for _, item := range strings.FieldsFunc(v.value, func(r rune) bool { return r == ',' }) {
				items = append(items, fmt.Sprintf("%q", item))
			}
			text = fmt.Sprintf("%s: [%s]\n", s.name, strings.Join(items, ", "))
		}
		env := []string{"KVS_" + strings.ToUpper(s.name) + "=" + v.value}
		for name, value := range beside[s.name] {
			text += name + ": " + value + "\n"
			env = append(env, "KVS_"+strings.ToUpper(name)+"="+value)
		}
		fromFile, err := load(t, "config.yaml", text)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		fromEnv, err := Load("", env)
		if err != nil {
			t.Errorf("%s in the environment: %v", s.name, err)
			continue
		}
		if !reflect.DeepEqual(fromFile, fromEnv) {
			t.Errorf("%s: the file gives %+v, the environment %+v", s.name, fromFile, fromEnv)
		}
		if v.field == "" {
			continue
		}
		fields[v.field] = true
		if got := reflect.ValueOf(fromFile).FieldByName(v.field).Interface(); !reflect.DeepEqual(got, v.want) {
			t.Errorf("%s: %v, want %v", s.name, got, v.want)
		}
	}
	for f := range reflect.TypeFor[Config]().Fields() {
		if !fields[f.Name] {
			t.Errorf("no key sets %s", f.Name)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // each is in the error
	}{
		{"prot: 1", []string{`config.yaml:1: unknown key "prot": did you mean "port"?`}},
		{"\n\nPort: 1", []string{`config.yaml:3: unknown key "Port": did you mean "port"?`}},
		{"seed_node: []", []string{`"seed_nodes"`}},
		{"zzzzzzzzzzzz: 1", []string{`config.yaml:1: unknown key "zzzzzzzzzzzz"`}},
		{"port: 1\nport: 2", []string{"config.yaml:2: port is there twice", "line 1"}},
		{"port: 1\n---\nport: 2", []string{"more than one YAML document"}},
		{"port: [", []string{"config.yaml", "line 1"}},
		{"just text", []string{"config.yaml:1"}},
		{"- a", []string{"config.yaml:1"}},
		{"port: 70000\nread_only: 1", []string{`config.yaml:1: port: "70000"`, "0 to 65535", `config.yaml:2: read_only: "1"`}},
		{"port: -1", []string{"0 to 65535"}},
		{"port: 80.5", []string{"whole number"}},
		{"port: 9223372036854775808", []string{"0 to 65535"}},
		{"port:", []string{"port: it needs a single value"}},
		{"port: [80]", []string{"port: it needs a single value"}},
		{"port: &a 80\nsync_interval: *a", []string{"sync_interval: it needs a single value"}},
		{"node_id: 'a b'", []string{"node_id", `"a b"`, "letters"}},
		{"node_id: ../x", []string{"node_id"}},
		{"node_id: ''", []string{"node_id"}},
		{"node_id: " + strings.Repeat("x", 65), []string{"1 to 64"}},
		{"bind_address: 0.0.0.0:80", []string{"bind_address", "without a port"}},
		{"bind_address: ''", []string{"bind_address"}},
		{"advertise_address: http://x", []string{"advertise_address", "host:port"}},
		{"advertise_address: x:0", []string{"advertise_address"}},
		{"advertise_address: host\nport: 0", []string{"advertise_address", "needs a port"}},
		{"data_dir: ''", []string{"data_dir: it must not be empty"}},
		{"seed_nodes: a:1", []string{"seed_nodes: it needs a list"}},
		{"seed_nodes: [a:1, b]", []string{"seed_nodes: item 2", `"b"`, "host:port"}},
		{"seed_nodes: ['http://a:1']", []string{"item 1"}},
		{"seed_nodes: [':1']", []string{"item 1"}},
		{"seed_nodes: ['a:0']", []string{"item 1"}},
		{"seed_nodes: ['a:http']", []string{"item 1"}},
		{"seed_nodes: [[a]]", []string{"item 1: it needs a single value"}},
		{"seed_nodes: [~]", []string{"item 1: it needs a single value"}},
		{"log_level: loud", []string{"debug, info, warn or error"}},
		{"read_only: yes", []string{"true or false"}},
		{"default_ttl: -1s", []string{"default_ttl", `"-1s"`}},
		{"default_ttl: 5", []string{"default_ttl", `"5"`}},
		{"max_clock_skew: 0s", []string{"max_clock_skew", "from 1ms to 1h0m0s"}},
		{"conflict_retention: 40000d", []string{"36500d"}},
		{"memory_budget_mb: 1", []string{"128 to"}},
		{"max_json_size: 0", []string{"max_json_size"}},
		{"compression_level: 23", []string{"1 to 22"}},
		{"default_mode: '755'", []string{"default_mode", "cdwr:--wr:---r"}},
		{"trusted_proxies: [example.com]", []string{"trusted_proxies: item 1"}},
		{"backup_schedule: hourly", []string{"backup_schedule", "five fields"}},
		{"backup_schedule: 61 * * * *", []string{"backup_schedule", "five fields", "61"}},
		{"gossip_interval_min: 200", []string{"gossip_interval_min (200)", "gossip_interval_max (120)"}},
		{"cluster_secret: short", []string{"cluster_secret", "5 bytes", "openssl rand -hex 32"}},
		{"previous_secrets: ['']", []string{"previous_secrets: item 1"}},
		{"cluster_secret: " + strings.Repeat("s", 32) + "\ncluster_secret_file: x", []string{"remove one"}},
		{"tls_cert_file: a", []string{"tls_cert_file and tls_key_file", "set both"}},
		{"tls_key_file: a", []string{"tls_cert_file and tls_key_file", "set both"}},
		{"tls_ca_file: a", []string{"tls_ca_file", "there is no TLS"}},
		{"cors_origins: ['*']", []string{"cors_origins: CORS is not in this version"}},
		{"job_worker_count: 1", []string{"job_worker_count: the job queue is not in this version"}},
		{"job_http_allow: [x]", []string{"job_http_allow"}},
	} {
		got, err := load(t, "config.yaml", c.text)
		if err == nil {
			t.Errorf("%q: no error", c.text)
			continue
		}
		if !reflect.DeepEqual(got, Config{}) {
			t.Errorf("%q: a configuration beside the error", c.text)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: the error %q does not say %q", c.text, err, want)
			}
		}
	}
}

func TestErrorsDoNotShowSecrets(t *testing.T) {
	_, err := load(t, "config.yaml", "cluster_secret: hunter2\nprevious_secrets: [hunter2]", "KVS_CLUSTER_SECRET=hunter2")
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
	c, err := Load("", []string{"KVS_CLUSTER_SECRET=" + strings.Repeat("hunter2", 5)})
	if err != nil || strings.Contains(fmt.Sprintf("%v %+v %#v", c, c, c), "hunter2") {
		t.Errorf("the configuration shows the secret, or %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	secret := strings.Repeat("s", 32)
	c, err := load(t, "config.yaml", "port: 1\nnode_id: file\nseed_nodes: [a:1]\ncluster_secret_file: /s\n",
		"PATH=/bin", "KVS_PORT=2", "KVS_SEED_NODES= b:2 ,, c:3,", "KVS_CLUSTER_SECRET="+secret,
		"KVS_URL=http://x", "KVS_TOKEN=t", "KVS_SERVICE_HOST=10.0.0.1", "KVS_", "kvs_port=3", "KVS_port=4", "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Port != 2 || c.NodeID != "file" || !slices.Equal(c.SeedNodes, []string{"b:2", "c:3"}) {
		t.Errorf("port %d, node_id %s, seed_nodes %q", c.Port, c.NodeID, c.SeedNodes)
	}
	if string(c.ClusterSecret) != secret || c.ClusterSecretFile != "" {
		t.Error("the secret of the environment does not replace the file's secret file")
	}
	c, err = load(t, "config.yaml", "seed_nodes: [a:1]\ncluster_secret: "+secret, "KVS_SEED_NODES=", "KVS_CLUSTER_SECRET_FILE=/s")
	if err != nil || c.SeedNodes != nil || c.ClusterSecret != "" || c.ClusterSecretFile != "/s" {
		t.Errorf("%+v, %v", c, err)
	}
	for variable, want := range map[string]string{
		"KVS_PORT=x":                     "environment: KVS_PORT:",
		"KVS_PORT=":                      "environment: KVS_PORT:",
		"KVS_PORT=tcp://10.96.0.17:8080": "enableServiceLinks: false",
		"KVS_SEED_NODE=a:1":              "unknown variable KVS_SEED_NODE: did you mean KVS_SEED_NODES?",
		"KVS_SEED_NODES=a":               "KVS_SEED_NODES: item 1",
		"KVS_JOB_WORKER_COUNT=1":         "not in this version",
	} {
		if _, err := Load("", []string{variable}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", variable, err)
		}
	}
	// A file that is wrong stays wrong, whatever the environment overrides.
	if _, err := load(t, "config.yaml", "port: x", "KVS_PORT=1"); err == nil {
		t.Error("the environment hides a mistake of the file")
	}
}

func TestWhatTheFileNameDecides(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, suffix := range map[string]string{
		"config.yaml": "", "node1.yaml": "-node1", "node2.yml": "-node2", "x.conf": "-x.conf",
	} {
		c, err := load(t, name, "auth_enabled: false\nseed_nodes: []\n")
		if err != nil || c.DataDir != "./data"+suffix || c.NodeID != host+suffix {
			t.Errorf("%s: data_dir %q, node_id %q, %v", name, c.DataDir, c.NodeID, err)
		}
		c, err = load(t, name, "data_dir: d\nnode_id: n")
		if err != nil || c.DataDir != "d" || c.NodeID != "n" {
			t.Errorf("%s: data_dir %q, node_id %q, %v", name, c.DataDir, c.NodeID, err)
		}
	}
	if _, err := load(t, "a b.yaml", ""); err == nil || !strings.Contains(err.Error(), "node_id") {
		t.Errorf("a file name that makes no node_id: %v", err)
	}
}

func TestFilesWithoutSettings(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "~\n", "{}\n", "seed_nodes:\n  # - a:1\n"} {
		if _, err := load(t, "config.yaml", text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Load("/nonexistent/node9.yaml", nil); err == nil || !strings.Contains(err.Error(), "/nonexistent/node9.yaml") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := load(t, "config.yaml", strings.Repeat("#\n", mb)); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestAdvertiseAddressGetsThePort(t *testing.T) {
	for given, want := range map[string]string{
		"":              "",
		"host":          "host:8081",
		"host:9":        "host:9",
		"10.0.0.1":      "10.0.0.1:8081",
		"::1":           "[::1]:8081",
		"'[fe80::1]:9'": "[fe80::1]:9",
	} {
		c, err := load(t, "config.yaml", "port: 8081\nadvertise_address: "+quoted(given))
		if err != nil || c.AdvertiseAddress != want {
			t.Errorf("%s: %q, %v; want %q", given, c.AdvertiseAddress, err, want)
		}
	}
}

func quoted(s string) string { return "'" + strings.Trim(s, "'") + "'" }

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"port", "port", 0}, {"prot", "port", 2}, {"por", "port", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func FuzzApplyFile(f *testing.F) {
	b, err := os.ReadFile(repository)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	for _, s := range []string{"port: 1", "a: &x [*x]", "<<: {port: 1}", "? [a]\n: b", "seed_nodes: [a:1]", "!!binary x: y", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		for _, err := range c.applyFile("f", []byte(text)) {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Fatalf("the error %q does not name the file", err)
			}
		}
	})
}
