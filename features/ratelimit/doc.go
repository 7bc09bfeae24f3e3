// Package ratelimit bounds how many requests a client may make: a token bucket
// each, that holds Requests tokens and is refilled evenly within Window.
//
// Invariants:
//   - A client's decisions depend on its own requests alone. Neither a flood of
//     one client nor one of ever new clients takes a token from another that the
//     table knows, or makes the table forget what it used up.
//   - Memory is bounded by MaxClients. A bucket that is full again says nothing,
//     so its entry is dropped; where all are in use, newcomers share one bucket.
//   - A decision takes one shard's lock, and allocates only for a client that is
//     new.
//
// The table is this node's own: a client that spreads its requests over n nodes
// gets n times as many. It does not know HTTP; who asks makes a header and a
// status of a Decision, and names the client: by the subject of its token, else
// by its address.
package ratelimit
