// Package auth answers who somebody is and whether they may.
//
// All trust comes from one secret that the nodes of a cluster share. Separate
// keys are derived from it for separate uses, so that what is signed for one use
// proves nothing in another: the gossip key, and the key of the tokens by which
// nodes prove themselves to each other.
//
// Invariants:
//   - A secret is never logged or put into an error; Secret's formatting sees to
//     it.
//   - A token is accepted only with the one algorithm, and with every claim that
//     this package writes; nothing in it is optional.
//   - Previous secrets verify and decrypt, and never sign or encrypt.
//
// It does not encrypt what nodes say to each other over HTTP: where the network
// is not trusted, TLS does.
package auth
