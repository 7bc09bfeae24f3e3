// Package client is the Go client of the store's HTTP interface.
//
//	c, err := client.New(client.Options{URL: "http://127.0.0.1:8080"})
//	_, err = c.Put(ctx, "greetings/en", "hello", client.PutOptions{})
//	item, err := c.Get(ctx, "greetings/en")
//	var s string
//	err = item.Decode(&s)
//
// Invariants:
//   - Every call takes a context and ends when it does; every body that is read
//     is bounded (Options.MaxResponse).
//   - A request is sent again only where the first one cannot have taken effect:
//     the connection was refused, or the node answered 503 or 429 with
//     Retry-After. Waits and attempts are bounded. After any other failure of a
//     write the outcome is unknown, and the caller decides.
//   - An answer of the store that says no is a *Problem, which errors.Is matches
//     with the sentinels of package types (types.ErrNotFound, types.ErrPrecond)
//     and of this one (ErrUnauthorized). No answer at all is
//     types.ErrUnreachable.
//   - A token is in no error and no log.
//   - A key that the store would not take is refused before anything is sent: a
//     key such as "_range" would otherwise reach another call.
//
// A node with TLS is at an https:// URL. Where its certificate is of a CA of one's
// own, Options.CAFile names the file with that CA:
//
//	c, err := client.New(client.Options{URL: "https://node1:8080", CAFile: "ca.pem"})
//
// It speaks to one node. It keeps no state but connections, follows no
// redirects, and does not choose between nodes.
package client
