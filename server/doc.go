// Package server is the process of a node: it opens the store, joins the
// cluster, listens on the one port, and speaks HTTP with clients.
//
// Invariants:
//   - Every answer that is not a success is RFC 9457 problem+json with a stable
//     code, those included that net/http gives by itself (see conn.go); the
//     table in problem.go is the only place that knows statuses and codes.
//   - No request is ever redirected: a path either is what it says, or refused.
//   - What arrives is bounded before it is read: headers, bodies, connections,
//     and the time that each may take.
//   - A JSON value is validated, never re-encoded: it leaves byte for byte as
//     it came.
//   - Teardown is last in, first out: requests end before the pushes are
//     flushed, these before the gossip is left, and the store closes last.
//
// It decides nothing about versions, replication or the order of writes: that
// is done in packages storage and cluster.
package server
