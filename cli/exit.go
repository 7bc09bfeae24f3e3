package cli

import (
	"context"
	"errors"
	"fmt"

	"kvs/types"
)

// The exit codes, as the help of the root command explains them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnreachable = 5
	exitInterrupted = 130 // what a shell reports of a process that Ctrl-C ended
)

// errInterrupted is what a command says that Ctrl-C ended.
var errInterrupted = errors.New("interrupted")

// usageError is a command line that says nothing that can be done.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (u usageError) Unwrap() error { return u.error }

func exitCode(err error) int {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.Is(err, types.ErrNotFound):
		return exitNotFound
	case errors.Is(err, types.ErrPrecond):
		return exitConflict
	case errors.Is(err, types.ErrUnreachable):
		return exitUnreachable
	}
	return exitFailed
}

// plain hides what an error wraps. That a node cannot run is status 1, whatever
// the reason is made of.
func plain(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(err.Error())
}
