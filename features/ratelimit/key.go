package ratelimit

import (
	"encoding/binary"
	"net/netip"
)

// Key is who is limited. Keys are equal where the clients are the same; the zero
// Key is a client of whom nothing is known. An address is no name of a subject,
// however that is written.
type Key struct {
	kind    uint8
	address uint64
	subject string
}

const (
	kindIPv4 = 1 + iota
	kindIPv6
	kindSubject
)

// SubjectKey is the key of a client that has shown who it is.
func SubjectKey(subject string) Key { return Key{kind: kindSubject, subject: subject} }

// AddressKey is the key of a client that is known by its address alone: an IPv4
// address, also one in IPv6 form, by itself; an IPv6 address by its /64, since
// that is what one host or one customer has, and may use all of. That of the
// zero Addr is the zero Key.
func AddressKey(addr netip.Addr) Key {
	addr = addr.Unmap()
	switch {
	case addr.Is4():
		b := addr.As4()
		return Key{kind: kindIPv4, address: uint64(binary.BigEndian.Uint32(b[:]))}
	case addr.Is6():
		b := addr.As16()
		return Key{kind: kindIPv6, address: binary.BigEndian.Uint64(b[:8])}
	}
	return Key{}
}
