// Package watch tells subscribers what changes in the namespace of users' data:
// puts, deletes and expiries, from now on or from a place in the past.
//
// A Hub follows the store's commits once, encodes each event once, and keeps the
// encoded events in one ring of bounded size. Subscribers have no queue: each
// holds a place in the ring, and reads at its own pace what concerns its prefix.
// A subscriber that comes from the past first catches up: from the store's own
// ring of recent commits if that reaches back far enough, else from the records
// themselves.
//
// Invariants:
//   - Whoever goes on reading, resuming where a connection broke, learns the
//     latest state of every key that it may see. Versions that were overwritten
//     may be left out where the records themselves are read.
//   - Events of one key come in the order of the commits. An expiry comes after
//     the version that expired, and not after a newer one.
//   - Before an event of commit S come all expiries up to the time of S: that is
//     how a place without a time bounds the expiries that may be missing after
//     it.
//   - Nothing is told twice on one subscription, but for a key that expires or is
//     written while the subscription catches up. After a resume, what followed
//     the place may come again.
//   - Memory is bounded whatever subscribers do: who falls behind the ring is
//     dropped (ErrSlow), and resumes from the store.
//   - A place after which something was forgotten (see storage.Store.Horizon) is
//     refused (ErrGone), never served with a gap.
//
// The order of locks: Hub.turn, then fanout.mu or marks.mu. The committer takes
// marks.mu alone.
//
// The package knows nothing of HTTP, nor of who may see what: that is
// SubOptions.Visible.
package watch
