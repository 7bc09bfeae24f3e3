// Package rpc carries node-to-node calls: one POST with a binary body, one
// binary answer, over kept-alive HTTP/1.1 connections.
//
// Invariants:
//   - No body is read past a limit, compressed or not, on either side.
//   - A call ends when its context ends, and has a time limit when its context
//     has none: a peer that hangs costs one goroutine and one connection.
//   - Bodies above a threshold travel in zstd (Content-Encoding) where that
//     makes them smaller; a caller sees plain bytes only.
//   - What an answer with another status than 200 says is an *Error.
//
// It knows nothing of what the bodies mean, and nothing of who may call: the
// client signs requests with the function it is given, and who serves the
// handlers checks that.
package rpc
