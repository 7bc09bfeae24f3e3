package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"kvs/client"
	"kvs/config"
	"kvs/server"
)

// fakeAudit is a tamper log in a data directory.
type fakeAudit struct {
	report  server.AuditReport
	entries []client.AuditEntry
	err     error

	dir       string // that was asked for
	filter    client.AuditFilter
	witnessed []client.AuditCheckpoint
}

func (f *fakeAudit) Verify(ctx context.Context, cfg config.Config, o auditVerify) (server.AuditReport, error) {
	f.dir = cfg.DataDir
	f.witnessed = o.Witnessed(ctx, "node-1")
	o.Progress(1)
	return f.report, f.err
}

func (f *fakeAudit) Entries(_ context.Context, cfg config.Config, filter client.AuditFilter, fn func(client.AuditEntry) error) error {
	f.dir, f.filter = cfg.DataDir, filter
	for _, e := range f.entries {
		if err := fn(e); err != nil {
			return err
		}
	}
	return f.err
}

func TestAuditVerify(t *testing.T) {
	automatic := away(t)
	writeFile(t, "n.yaml", "data_dir: ./here\ncluster_secret: "+testSecret+"\n")
	good := server.AuditReport{Node: "node-1", Entries: 7, Last: 9, Head: "abc", FirstTime: 1, LastTime: 2, Refused: 3, Suppressed: 1,
		Gaps: []server.AuditGap{{Entry: 4, Time: 5, Records: 6}, {Records: 1}}}
	f := &fakeAudit{report: good}

	r := runCommand(t, newAudit(f), "", "verify", "n.yaml")
	if r.code != exitOK || r.stderr != "" || f.dir != "./here" || len(f.witnessed) != 0 {
		t.Errorf("%+v, %+v", r, f)
	}
	for _, want := range []string{"node-1", "7, the last is 9", "abc", "3 attempts, of which 1", "no other node was asked (--peer URL)",
		"before entry 4", "6 records changed without the log", "at the end: 1 record changed", "none found"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in\n%s", want, r.stdout)
		}
	}

	// With a configuration of its own in this directory, and with none.
	runCommand(t, newAudit(f), "", "verify")
	if f.dir != "./data" {
		t.Errorf("looked at %s", f.dir)
	}
	writeFile(t, "config.yaml", "data_dir: ./there\n")
	runCommand(t, newAudit(f), "", "verify")
	if f.dir != "./there" {
		t.Errorf("looked at %s", f.dir)
	}

	// Peers are asked with a token of the node's own secret.
	writeFile(t, automatic, otherSecret+"\n")
	const checkpoint = `{"n":3,"head":"aa","time":4,"public_key":"bb","signature":"cc"}`
	n := newAnswering(t, map[string]string{"GET /admin/audit/witnessed": `{"node":"node-1","checkpoints":[` + checkpoint + `]}`})
	f.report.Witnessed, f.report.WitnessedTo = 1, 3
	r = runCommand(t, newAudit(f), "", "verify", "n.yaml", "--peer", n.url, "--peer", n.url)
	want := client.AuditCheckpoint{N: 3, Head: "aa", Time: 4, PublicKey: "bb", Signature: "cc"}
	if r.code != exitOK || !reflect.DeepEqual(f.witnessed, []client.AuditCheckpoint{want, want}) {
		t.Errorf("%+v, %+v", r, f.witnessed)
	}
	if !strings.Contains(r.stdout, "1 checkpoint of other nodes agree, up to entry 3") || !strings.Contains(r.stdout, n.url+": 1 checkpoint\n") {
		t.Errorf("%s", r.stdout)
	}
	if got := n.sent(); got != "GET /admin/audit/witnessed?node=node-1 | GET /admin/audit/witnessed?node=node-1" {
		t.Errorf("sent %s", got)
	}
	if _, err := tokensOf(testSecret).Verify(strings.TrimPrefix(n.token(), "Bearer ")); err != nil {
		t.Error(err)
	}
}

func TestAuditVerifyFindings(t *testing.T) {
	away(t)
	f := &fakeAudit{report: server.AuditReport{Node: "node-1", Problems: []server.AuditProblem{
		{Kind: "altered", First: 5, Last: 9, Text: "the block at entry 5 was altered"},
		{Kind: "truncated", First: 20, Last: 30, Text: "its end\x1b[2J was cut off"},
	}}}
	r := runCommand(t, newAudit(f), "", "verify")
	if r.code != exitFailed || !strings.Contains(r.stderr, "node-1") || !strings.Contains(r.stderr, "2 problems") {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"altered, entries 5 to 9: the block at entry 5 was altered", "truncated, entries 20 to 30: its end\\x1b[2J was cut off"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in\n%s", want, r.stdout)
		}
	}
	r = runCommand(t, newAudit(f), "", "verify", "-o", "json")
	var got auditReport
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != exitFailed {
		t.Fatalf("%v: %+v", err, r)
	}
	if !reflect.DeepEqual(got.Problems, f.report.Problems) || !strings.Contains(r.stdout, `"peers":[]`) {
		t.Errorf("%s", r.stdout)
	}

	// A witness that cannot be asked is told, and what the others say as well.
	n := newAnswering(t, map[string]string{"GET /admin/audit/witnessed": "401"})
	f = &fakeAudit{report: server.AuditReport{Node: "node-1"}}
	r = runCommand(t, newAudit(f), "", "verify", "--peer", n.url, "--peer", "127.0.0.1:1", "--peer", "ftp://x")
	if r.code != exitFailed || strings.Count(r.stdout, "NOT ASKED") != 3 || strings.Count(r.stderr, "could not be asked") != 3 || !strings.Contains(r.stderr, "No token was sent") {
		t.Errorf("%+v", r)
	}

	f = &fakeAudit{err: errors.New("the data directory is in use")}
	if r := runCommand(t, newAudit(f), "", "verify"); r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, "in use") {
		t.Errorf("%+v", r)
	}
	if r := runCommand(t, newAudit(f), "", "verify", "none.yaml"); r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, "none.yaml") {
		t.Errorf("%+v", r)
	}
}

func TestAuditLs(t *testing.T) {
	away(t)
	entries := []client.AuditEntry{
		{N: 1, Time: 1000, Action: "put", Who: "u", Token: "j", From: "::1", Key: "a/b", Namespace: "data", After: "v1"},
		{N: 2, Time: 2000, Action: "refused", From: "::1", Key: "a\tb\x1b[2J", Detail: "no\nright", Count: 12},
		{N: 3, Time: 3000, Action: "delete", Who: "root", Key: "user/x", Namespace: "auth", Before: "v1", After: "v2", Count: 1},
	}
	lines := fmt.Sprintf("1\t%s\tput\tu from ::1\ta/b\t- -> v1\n", when(1000)) +
		fmt.Sprintf("2\t%s\trefused\t- from ::1\ta\\tb\\x1b[2J\t12 times; no\\nright\n", when(2000)) +
		fmt.Sprintf("3\t%s\tdelete\troot\tauth:user/x\tv1 -> v2\n", when(3000))

	writeFile(t, "n.yaml", "data_dir: ./here\n")
	f := &fakeAudit{entries: entries}
	r := runCommand(t, newAudit(f), "", "ls", "n.yaml", "--since", "1000", "--until", "1970-01-01T00:00:05Z", "--who", "u", "--key", "a/", "--action", "put")
	if r.code != exitOK || r.stdout != lines || r.stderr != "" || f.dir != "./here" {
		t.Errorf("%+v\nwant %s", r, lines)
	}
	if !f.filter.Since.Equal(time.UnixMilli(1000)) || !f.filter.Until.Equal(time.UnixMilli(5000)) || f.filter.Who != "u" || f.filter.Key != "a/" || f.filter.Action != "put" {
		t.Errorf("%+v", f.filter)
	}
	r = runCommand(t, newAudit(f), "", "ls", "n.yaml", "--limit", "2", "-o", "json")
	for i, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		var e client.AuditEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil || i > 1 || e != entries[i] {
			t.Errorf("%s: %v", line, err)
		}
	}
	f.err = errors.New("the data directory is in use")
	if r := runCommand(t, newAudit(f), "", "ls", "n.yaml"); r.code != exitFailed || r.stdout != lines || !strings.Contains(r.stderr, "in use") {
		t.Errorf("%+v", r)
	}

	// Of a node, page by page.
	first, err := json.Marshal(map[string]any{"entries": entries[:2], "next_after": 2})
	if err != nil {
		t.Fatal(err)
	}
	n := newAnswering(t, map[string]string{"GET /admin/audit": string(first)})
	f = &fakeAudit{}
	r = runCommand(t, newAudit(f), "", "ls", "--limit", "3", "--since", "1000")
	if r.code != exitOK || strings.Count(r.stdout, "\n") != 3 || f.dir != "" {
		t.Errorf("%+v", r)
	}
	if got := n.sent(); got != "GET /admin/audit?limit=3&since=1000 | GET /admin/audit?after=2&limit=3&since=1000" {
		t.Errorf("sent %s", got)
	}
	for _, args := range []string{"--since yesterday", "--until 5x", "--limit -1", "a b"} {
		if r := runCommand(t, newAudit(f), "", append([]string{"ls"}, strings.Fields(args)...)...); r.code != exitUsage || n.sent() != "" {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestParseMoment(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for in, want := range map[string]time.Time{
		"": {}, "1700000000000": time.UnixMilli(1_700_000_000_000), "90m": now.Add(-90 * time.Minute), "7d": now.Add(-7 * 24 * time.Hour),
		"2026-01-31T15:04:05Z": time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC), "2026-01-31T15:04:05.5+02:00": time.Date(2026, 1, 31, 13, 4, 5, 5e8, time.UTC),
	} {
		if got, err := parseMoment("since", in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}
