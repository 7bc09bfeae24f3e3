package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"kvs/auth"
)

func TestSecretNew(t *testing.T) {
	automatic := away(t)
	first, second := runCommand(t, newSecret(), "", "new"), runCommand(t, newSecret(), "", "new")
	if !regexp.MustCompile(`^[0-9a-f]{64}\n$`).MatchString(first.stdout) || first.stderr != "" || first.code != exitOK || first.stdout == second.stdout {
		t.Errorf("%+v, %+v", first, second)
	}
	if _, err := os.Stat(automatic); err == nil {
		t.Error("it was written somewhere")
	}
}

func TestSecretPath(t *testing.T) {
	automatic := away(t)
	path := func(want, note string, args ...string) {
		t.Helper()
		r := runCommand(t, newSecret(), "", append([]string{"path"}, args...)...)
		if r.code != exitOK || r.stdout != want+"\n" || (r.stderr == "") != (note == "") || !strings.Contains(r.stderr, note) {
			t.Errorf("%+v, want %s", r, want)
		}
		noSecrets(t, r)
	}
	path(automatic, "not there yet")
	if _, err := os.Stat(automatic); err == nil {
		t.Error("it was made")
	}
	writeFile(t, automatic, testSecret)
	path(automatic, "")
	writeFile(t, "config.yaml", "cluster_secret: "+testSecret)
	path("cluster_secret in config.yaml", "")
	path("/x/y", "", "--config", writeFile(t, "n.yaml", "cluster_secret_file: /x/y"))
	t.Setenv("KVS_CLUSTER_SECRET", otherSecret)
	path("KVS_CLUSTER_SECRET", "")
}

func TestSecretRotate(t *testing.T) {
	automatic := away(t)
	rotate := func(code int, want string, args ...string) {
		t.Helper()
		r := runCommand(t, newSecret(), "", append([]string{"rotate"}, args...)...)
		out := r.stdout
		if code != exitOK {
			out = r.stderr
		}
		if r.code != code || !strings.Contains(out, want) || code != exitOK && r.stdout != "" {
			t.Errorf("%v: %+v, want %q", args, r, want)
		}
		noSecrets(t, r)
		held, err := os.ReadFile(automatic)
		for _, line := range strings.Fields(string(held)) {
			if strings.Contains(r.stdout+r.stderr, line) {
				t.Errorf("a secret was printed: %v", err)
			}
		}
	}
	rotate(exitFailed, "does not exist", "add")
	writeFile(t, automatic, testSecret+"\n")
	old, _ := made(t, testSecret, 0, 1e12)
	accepts := func(current bool, accepted bool) {
		t.Helper()
		s, err := auth.LoadSecret(auth.SecretOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = auth.NewClientTokens(auth.ClientTokensOptions{Keys: auth.DeriveKeys(s)}).Verify(old)
		if (s.Current == testSecret) != current || (err == nil) != accepted {
			t.Errorf("the old secret is current: %v, accepted: %v", s.Current == testSecret, err)
		}
	}
	rotate(exitFailed, "add one first", "switch")
	rotate(exitFailed, "no rotation is under way", "finish")
	rotate(exitOK, "kvs secret rotate switch", "add")
	accepts(true, true)
	rotate(exitFailed, "finish the rotation", "add")
	rotate(exitOK, "kvs secret rotate finish", "switch", "--file", automatic)
	accepts(false, true)
	rotate(exitOK, "refuses the old one", "finish", "--config", writeFile(t, "n.yaml", "previous_secrets: ["+otherSecret+"]"))
	accepts(false, false)

	rotate(exitUsage, "give one", "add", "--file", automatic, "--config", "n.yaml")
	rotate(exitUsage, "unknown command", "add", "x")
	r := runCommand(t, newSecret(), "", "rotate", "add", "--config", "n.yaml")
	if !strings.Contains(r.stderr, "previous_secrets holds 1 accepted secret beside this file") {
		t.Errorf("%+v", r)
	}
}

func TestSecretRotateByHand(t *testing.T) {
	const previous = "previous_secrets: [" + otherSecret + "]\n"
	for name, tt := range map[string]struct {
		env    map[string]string
		config string
		step   string
		want   []string
		not    []string
	}{
		"add to the file": {nil, "port: 1\ncluster_secret: " + testSecret + "\n\nprevious_secrets: []\n", "add",
			[]string{"cluster_secret in config.yaml", "line 4: previous_secrets: [\"<the fresh secret, made by `kvs secret new`>\"]", "then run `kvs secret rotate switch`"}, []string{"line 2"}},
		"add, no such line": {nil, "cluster_secret: " + testSecret + "\n# previous_secrets: []\n", "add",
			[]string{"a line of its own: previous_secrets: ["}, nil},
		"switch in the file": {nil, previous + "'cluster_secret' : " + testSecret + "\n", "switch",
			[]string{`line 2: cluster_secret: "<the fresh secret`, `line 1: previous_secrets: ["<the old secret`, "then run `kvs secret rotate finish`"}, nil},
		"finish in the file": {nil, previous + "cluster_secret: " + testSecret + "\n", "finish",
			[]string{"line 1: previous_secrets: []", "restart the nodes one by one"}, []string{"then run"}},
		"add to the environment": {map[string]string{"KVS_CLUSTER_SECRET": testSecret}, "", "add",
			[]string{"KVS_PREVIOUS_SECRETS=<the fresh secret"}, []string{"config.yaml"}},
		"switch in the environment": {map[string]string{"KVS_CLUSTER_SECRET": testSecret, "KVS_PREVIOUS_SECRETS": otherSecret}, "", "switch",
			[]string{"KVS_CLUSTER_SECRET=<the fresh secret", "KVS_PREVIOUS_SECRETS=<the old secret"}, nil},
		"finish in the environment": {map[string]string{"KVS_CLUSTER_SECRET": testSecret, "KVS_PREVIOUS_SECRETS": otherSecret}, "", "finish",
			[]string{"KVS_PREVIOUS_SECRETS=\n"}, nil},
		"add twice":    {nil, previous + "cluster_secret: " + testSecret + "\n", "add", []string{"holds 1 secret already", "finish"}, []string{"make it"}},
		"switch first": {nil, "cluster_secret: " + testSecret + "\n", "switch", []string{"begin with `kvs secret rotate add`"}, []string{"make it"}},
		"finish first": {nil, "cluster_secret: " + testSecret + "\n", "finish", []string{"begin with `kvs secret rotate add`"}, []string{"make it"}},
	} {
		t.Run(name, func(t *testing.T) {
			automatic := away(t)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			if tt.config != "" {
				writeFile(t, "config.yaml", tt.config)
			}
			r := runCommand(t, newSecret(), "", "rotate", tt.step)
			if r.code != exitFailed || r.stdout != "" {
				t.Errorf("%+v", r)
			}
			for _, want := range tt.want {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("%q is not in\n%s", want, r.stderr)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(r.stderr, not) {
					t.Errorf("%q is in\n%s", not, r.stderr)
				}
			}
			noSecrets(t, r)
			if b, err := os.ReadFile("config.yaml"); tt.config != "" && (err != nil || string(b) != tt.config) {
				t.Error("the configuration was changed", err)
			}
			if _, err := os.Stat(automatic); err == nil {
				t.Error("a secret was made")
			}
		})
	}
}
