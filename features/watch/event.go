package watch

import "kvs/types"

// Kind says what happened to a key.
type Kind uint8

// The kinds.
const (
	Put    Kind = iota // it has a new version with a value
	Delete             // its new version is a tombstone
	Expire             // its value has expired
)

// String gives the name that clients see.
func (k Kind) String() string { return [...]string{"put", "delete", "expire"}[k] }

// Event is one thing that happened.
type Event struct {
	Kind  Kind
	Place Place // from which to resume behind the event
	// Record is the version that was written, or that expired. Whoever gets it
	// must not keep it.
	Record *types.Record
}

// kindOf is what a version means to whoever learns of it when all expiries up to
// time (Unix ms) are told.
func kindOf(rec *types.Record, time int64) Kind {
	switch {
	case rec.Tombstone():
		return Delete
	case !rec.Live(time):
		return Expire
	}
	return Put
}
