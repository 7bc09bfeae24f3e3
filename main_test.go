package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kvs": main})
}

// The scripts show what a user sees, with real processes. Beside testscript's
// own commands they have
//
//	start NAME [ARG...]       run `kvs ARG...` as a node on any free port; its URL
//	                          is then $NAME, host:port $NAME_ADDR, its log NAME.log
//	halt NAME SIGNAL STATUS   send SIGTERM or SIGINT and check the exit status
//	until COMMAND [ARG...]    repeat `kvs COMMAND ARG...` until it succeeds and
//	                          prints what matches the pattern in $want
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Values[nodesKey{}] = map[string]*process{}
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, ".config"))
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, ".cache"))
			e.Setenv("KVS_PORT", "0")
			// The race detector would hold up the exit of every process for a second.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Setenv("KVS_MIN_FREE_DISK_MB", "16")
			return os.WriteFile(filepath.Join(e.WorkDir, "default.yaml"), defaultConfig, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": start, "halt": halt, "until": until,
		},
	})
}

// patience bounds every wait for something that takes far less.
const patience = time.Minute

type nodesKey struct{}

// process is a node that a script started.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

var servingAt = regexp.MustCompile(`msg=serving url=http://(\S+)`)

func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: start NAME [ARG...]")
	}
	name := args[0]
	p := &process{cmd: exec.Command("kvs", args[1:]...), log: ts.MkAbs(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	ts.Check(err)
	defer log.Close()
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), log, log
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "KVS_PORT", "KVS_SEED_NODES", "KVS_MIN_FREE_DISK_MB", "KVS_BACKUP_PATH", "GORACE", "GOCOVERDIR"} {
		if v := ts.Getenv(name); v != "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+v)
		}
	}
	ts.Check(p.cmd.Start())
	go func() { p.cmd.Wait(); close(p.done) }()
	ts.Defer(func() { p.cmd.Process.Kill(); <-p.done })
	ts.Value(nodesKey{}).(map[string]*process)[name] = p

	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if m := servingAt.FindStringSubmatch(ts.ReadFile(p.log)); m != nil {
			ts.Setenv(name, "http://"+m[1])
			ts.Setenv(name+"_ADDR", m[1])
			return
		}
		select {
		case <-p.done:
			ts.Fatalf("%s ended: %s\n%s", name, p.cmd.ProcessState, ts.ReadFile(p.log))
		case <-time.After(10 * time.Millisecond):
		}
	}
	ts.Fatalf("%s does not serve\n%s", name, ts.ReadFile(p.log))
}

func halt(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": os.Interrupt}
	if neg || len(args) != 3 || signals[args[1]] == nil {
		ts.Fatalf("usage: halt NAME SIGTERM|SIGINT STATUS")
	}
	p := ts.Value(nodesKey{}).(map[string]*process)[args[0]]
	ts.Check(p.cmd.Process.Signal(signals[args[1]]))
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s does not end\n%s", args[0], ts.ReadFile(p.log))
	}
	if got := fmt.Sprint(p.cmd.ProcessState.ExitCode()); got != args[2] {
		ts.Fatalf("%s: exit status %s, want %s\n%s", args[0], got, args[2], ts.ReadFile(p.log))
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	want, err := regexp.Compile(ts.Getenv("want"))
	ts.Check(err)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: until COMMAND [ARG...]")
	}
	for deadline := time.Now().Add(patience); ; {
		err := ts.Exec("kvs", args...)
		got := ts.ReadFile("stdout")
		if err == nil && want.MatchString(got) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("kvs %s still gives\n%s%v, want %s", strings.Join(args, " "), got, err, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A second signal must not wait for the requests that the first one lets end.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("kvs")
	cmd.Dir, cmd.Stderr = dir, log
	cmd.Env = append(os.Environ(), "KVS_PORT=0", "KVS_MIN_FREE_DISK_MB=16", "XDG_CONFIG_HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	defer func() { cmd.Process.Kill(); <-ended }()

	// A request whose body never comes.
	conn, err := net.Dial("tcp", awaitLog(t, log.Name(), servingAt)[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /kv/slow HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil { // the node asks for the body
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	awaitLog(t, log.Name(), regexp.MustCompile(`msg=stopping`))
	select {
	case <-ended:
		t.Fatal("ended while a request was under way")
	default:
	}
	start := time.Now()
	cmd.Process.Signal(syscall.SIGTERM)
	<-ended
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if got, want := cmd.ProcessState.ExitCode(), 128+int(syscall.SIGTERM); got != want {
		t.Errorf("exit status %d, want %d", got, want)
	}
}

func awaitLog(t *testing.T, path string, want *regexp.Regexp) []string {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if m := want.FindStringSubmatch(string(text)); m != nil {
			return m
		}
	}
	text, err := os.ReadFile(path)
	t.Fatalf("no %s in the log\n%s%v", want, text, err)
	return nil
}
