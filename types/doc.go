// Package types is the vocabulary of the store: the values that packages
// exchange, their order, and the merge that every node computes alike.
//
// Invariants:
//   - Compare is a total order over versions, and Merge a pure function of two
//     records of one key: the same two records give the same winner on every
//     node, in any order of arrival.
//   - A version never changes once written. Two copies of one version (the same
//     uuid) differ in nothing but PurgeAt and ExpiresAt, and Merge keeps the
//     copy that lives longer.
//   - Nothing here reads a clock, does I/O or starts a goroutine.
package types
