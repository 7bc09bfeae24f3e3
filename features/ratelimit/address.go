package ratelimit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ClientAddress finds out whose request it is. remoteAddr is the peer of the
// connection, as net/http gives it; forwardedFor are the values of the header
// X-Forwarded-For, in their order.
//
// Anybody can send that header, so it is looked at only if the peer is one of
// the trusted proxies. Each proxy appends the peer that it saw. So the walk goes
// from the right, past the trusted ones; the first that is not trusted is the
// client, and what stands to its left is its own word and not looked at. Where
// all are trusted it is the leftmost. What is no address (an empty element, a
// name, "unknown") ends the walk at the proxy that wrote it, and that one is
// the client: to go on behind it would be to believe whoever sent it.
//
// Elements may have a port, and IPv6 addresses brackets. IPv4 addresses in IPv6
// form are given as IPv4, and zones are dropped. The zero Addr is given for a
// peer without an IP address.
func ClientAddress(remoteAddr string, forwardedFor []string, trusted []netip.Prefix) netip.Addr {
	client, ok := parseHop(remoteAddr)
	if !ok {
		return netip.Addr{}
	}
	for _, line := range slices.Backward(forwardedFor) {
		for more := true; more; {
			if !isTrusted(client, trusted) {
				return client
			}
			element := line
			if comma := strings.LastIndexByte(line, ','); comma >= 0 {
				line, element = line[:comma], line[comma+1:]
			} else {
				more = false
			}
			hop, ok := parseHop(strings.Trim(element, " \t"))
			if !ok {
				return client
			}
			client = hop
		}
	}
	return client
}

func isTrusted(addr netip.Addr, trusted []netip.Prefix) bool {
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// parseHop reads "1.2.3.4", "1.2.3.4:567", "2001:db8::1", "[2001:db8::1]" and
// "[2001:db8::1]:567". It tells them apart by their shape: to try one parser
// after the other would make an error, and so an allocation, for each request.
func parseHop(s string) (netip.Addr, bool) {
	var addr netip.Addr
	var err error
	bracketed := strings.HasPrefix(s, "[")
	switch {
	case bracketed && strings.HasSuffix(s, "]"):
		addr, err = netip.ParseAddr(s[1 : len(s)-1])
	case bracketed || strings.Count(s, ":") == 1:
		var withPort netip.AddrPort
		withPort, err = netip.ParseAddrPort(s)
		addr = withPort.Addr()
	default:
		addr, err = netip.ParseAddr(s)
	}
	if err != nil || bracketed && !addr.Is6() {
		return netip.Addr{}, false
	}
	return addr.Unmap().WithZone(""), true
}

// ParseNetworks reads addresses and networks ("10.0.0.1", "10.0.0.0/8",
// "2001:db8::/32"), as ClientAddress takes them.
func ParseNetworks(list []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, s := range list {
		p, err := parseNetwork(s)
		if err != nil {
			return nil, fmt.Errorf("%q is no IP address or network: %w", s, err)
		}
		networks = append(networks, p)
	}
	return networks, nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	// Addresses are compared as IPv4 where they can be, so networks are too.
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
