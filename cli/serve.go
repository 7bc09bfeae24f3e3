package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"kvs/config"
	"kvs/server"
	"kvs/utils/atomicfile"
)

// defaultConfigFile is what a node reads where no file is named.
const defaultConfigFile = "config.yaml"

// serve runs a node until the command's context ends. An end by that is no
// error.
func serve(cmd *cobra.Command, args []string, p Process) error {
	path, err := configFile(args, p.DefaultConfig, cmd.ErrOrStderr())
	if errors.Is(err, fs.ErrNotExist) && len(args) > 0 {
		return noSuchConfig(cmd, args[0])
	}
	if err != nil {
		return err
	}
	cfg, err := config.Load(path, os.Environ())
	if err != nil {
		return err
	}
	limitMemory(cfg.MemoryBudget)
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: cfg.LogLevel}))
	node, err := server.New(cfg, server.Options{Version: p.Version, Log: log})
	if err != nil {
		return plain(err)
	}
	return plain(node.Run(cmd.Context()))
}

// limitMemory makes the garbage collector keep the process near its budget, and
// not let it double between two runs; GOMEMLIMIT, where it is set, has the say.
// The eighth is for what comes and goes: the collector would otherwise run all
// the time while tables are built.
func limitMemory(budget int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(budget + budget/8)
	}
}

// configFile gives the file to read: the one that is named, which must be there;
// else the default one, which is written where it is missing. It gives "" for no
// file at all.
func configFile(args []string, commented []byte, notes io.Writer) (string, error) {
	if len(args) > 0 {
		_, err := os.Stat(args[0])
		return args[0], err
	}
	switch _, err := os.Stat(defaultConfigFile); {
	case err == nil:
		return defaultConfigFile, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	switch err := atomicfile.Create(defaultConfigFile, commented, 0o644); {
	case err == nil:
		fmt.Fprintf(notes, "wrote %s: every setting with its default and what it does\n", defaultConfigFile)
	case errors.Is(err, fs.ErrExist):
		// Another node was started here at the same moment, and wrote it.
	default:
		// A container may have a read-only directory, and be configured by the
		// environment alone.
		fmt.Fprintf(notes, "no %s here, and none can be written (%v): going on with the defaults and the environment\n",
			defaultConfigFile, err)
		return "", nil
	}
	return defaultConfigFile, nil
}

// noSuchConfig helps whoever misspelt a command: any other word is the name of a
// configuration file.
func noSuchConfig(cmd *cobra.Command, arg string) error {
	if strings.ContainsAny(arg, "./\\") {
		return fmt.Errorf("there is no configuration file %s", arg)
	}
	text := fmt.Sprintf("there is no command %q, and no configuration file of that name", arg)
	if near := cmd.Root().SuggestionsFor(arg); len(near) > 0 {
		text += fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
	}
	return usageError{errors.New(text)}
}
