// Command kvs is a node of a clustered key-value store, and the command line to
// work with it. See `kvs --help`.
package main

import (
	"context"
	_ "embed"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"kvs/cli"
)

// defaultConfig is written on the first run where there is no config.yaml.
//
//go:embed config.yaml
var defaultConfig []byte

// version is set by the linker (-X main.version=1.2.3).
var version string

func main() { os.Exit(run()) }

func run() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		// The first signal asks for an orderly end, the second one does not wait
		// for it. One handler for both, so that none is lost between two.
		<-signals
		cancel()
		second := <-signals
		os.Exit(128 + int(second.(syscall.Signal)))
	}()
	return cli.Run(ctx, cli.Process{
		Args:          os.Args[1:],
		Stdin:         os.Stdin,
		Stdout:        os.Stdout,
		Stderr:        os.Stderr,
		DefaultConfig: defaultConfig,
		Version:       versionText(),
	})
}

// versionText is the linker's version, else what the Go tool knows of the build.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := info.Main.Version
	if text == "" {
		text = "(devel)"
	}
	return text
}
