// Package auth answers who somebody is and whether they may.
//
// All trust comes from one secret that the nodes of a cluster share. Separate
// keys are derived from it for separate uses, so that what is signed for one use
// proves nothing in another: the gossip key, the key of the tokens by which
// nodes prove themselves to each other, and the key of clients' tokens.
//
// A client's request goes through here in three steps: Authenticator.Identify
// makes a Principal of its token (ClientTokens) and of what the cluster knows of
// users, groups and revocations (Directory); Principal.May then answers for each
// item.
//
// Invariants:
//   - A secret is never logged or put into an error, and neither is a token;
//     Secret's formatting sees to the first.
//   - A token is accepted only with the one algorithm, and with every claim that
//     this package writes; nothing in it is optional. Of a client's token not a
//     byte is parsed before its signature is verified.
//   - Previous secrets verify and decrypt, and never sign or encrypt.
//   - What has been revoked or deleted stays so, in whatever order records
//     arrive: the marks for it are only ever written.
//   - This package does no I/O but for secret files. Changes to users and groups
//     are data that the caller writes.
//
// It does not encrypt what is said over HTTP: where the network is not trusted,
// TLS does.
package auth
