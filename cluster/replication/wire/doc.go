// Package wire is the binary form of what nodes say to each other under /sync/.
//
// Every body begins with the same header; integers are big-endian, a uvarint is
// that of encoding/binary in its shortest spelling:
//
//	1    protocol version, 1
//	1    kind
//	16   UUID of the node that sends the body
//	var  horizon E of the sender when it read what the body holds, uvarint, Unix ms
//
// The bodies, in the order in which nodes use them:
//
//	push       -> units of records                    <- the refused ones
//	root       -> salt, digest, count                 <- "equal", or digest, count and 16 child digests
//	nodes      -> salt, level, node indexes           <- 16 child digests of each
//	buckets    -> salt, first hash, bucket indexes    <- key hash and digest of each record
//	exchange   -> salt, hash, timestamp, digest ...   <- newer records, and indexes of what is wanted
//	fetch      -> refs                                <- the records that there are
//	stream     -> age band, position, size            <- records, next position, done
//
// A request that was read under a smaller horizon than the receiver's is
// answered by a body of kind "horizon", whose header says which.
//
// Digests within a comparison are 4 bytes: XXH3-64 of the whole digest, seeded
// with the comparison's salt, its low half. The salt is drawn anew for each
// comparison, so that what happens to be equal in one differs in the next.
//
// Invariants:
//   - A decoder accepts only what the encoder makes, checks every length and
//     count against the bytes at hand before it allocates, and never panics.
//   - Decoded records alias the body.
//
// The package does no I/O.
package wire
