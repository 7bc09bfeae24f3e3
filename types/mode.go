package types

// Mode is what a node does with clients' calls.
type Mode string

// The modes.
const (
	ModeNormal   Mode = "normal"
	ModeReadOnly Mode = "read-only" // client writes are refused, replication is accepted
	ModeSyncing  Mode = "syncing"   // being filled from a peer: writes refused, reads forwarded
)
