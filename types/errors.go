package types

import "errors"

// Outcomes that callers branch on, whichever package found them.
var (
	ErrInvalidKey  = errors.New("invalid key")
	ErrNotFound    = errors.New("key not found")
	ErrPrecond     = errors.New("precondition failed")
	ErrTooLarge    = errors.New("too large")
	ErrDiskFull    = errors.New("disk nearly full")
	ErrClockSkew   = errors.New("clock skew")
	ErrCorrupt     = errors.New("corrupt record")
	ErrClosed      = errors.New("the node is stopping")
	ErrReadOnly    = errors.New("read-only")
	ErrSyncing     = errors.New("syncing")
	ErrUnreachable = errors.New("node unreachable")
)
