// Package merkle keeps one tree of digests over all records of a node, so that
// two nodes find what differs between them by comparing a few numbers.
//
// A record falls into one of 2^16 buckets, the leaves, by the top bits of its
// key's hash. A leaf is the number of its records and the sum of their digests
// modulo 2^128; above the leaves stand four levels of nodes with sixteen
// children each, the root being level 0 and the leaves level 4. A leaf's digest
// is its sum plus 2^64 times its count, a node's the XXH3-128 of its children's.
//
// Invariants:
//   - The tree is a function of the set of (key hash, record digest) in it, in
//     whatever order they came and went: a tree kept up to date always equals
//     the one rebuilt from the records.
//   - A digest covers the logical version of a record and never its encoded
//     bytes, so that a new record format changes no tree.
//   - An empty subtree has the zero digest.
//
// Sums, unlike hashes of lists, would let somebody who chooses the digests
// build collisions (Bellare and Micciancio, "A New Paradigm for Collision-free
// Hashing", 1997). The digests cover a uuid that the server makes, so clients
// cannot choose them; nodes trust each other.
//
// What is hashed, and how, is part of the sync protocol and of the checkpoint
// format: nodes that disagree on it would repair each other for ever.
package merkle
