package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// What the derived keys are for. A label is part of the protocol: nodes that
// differ in one do not understand each other.
const (
	labelGossip      = "kvs v1 gossip"
	labelNodeToken   = "kvs v1 node token"
	labelClientToken = "kvs v1 client token"
	labelTokenID     = "kvs v1 token id" // of the MAC within a client token's jti
	labelKeyID       = "kvs v1 key id"   // of the public name of a client token's key
)

const keySize = 32

// Keys are derived from the secrets, each for one use (HKDF-SHA256, RFC 5869).
// In every list the current secret's key comes first, then the previous ones'.
type Keys struct {
	Gossip         []byte   // encrypts gossip
	PreviousGossip [][]byte // decrypts gossip of nodes with a previous secret

	nodeToken [][]byte
	client    []clientKey
}

// DeriveKeys gives the keys of the secrets.
func DeriveKeys(s Secrets) Keys {
	k := Keys{
		Gossip:    derive(s.Current, labelGossip),
		nodeToken: [][]byte{derive(s.Current, labelNodeToken)},
		client:    []clientKey{newClientKey(s.Current)},
	}
	for _, previous := range s.Previous {
		k.PreviousGossip = append(k.PreviousGossip, derive(previous, labelGossip))
		k.nodeToken = append(k.nodeToken, derive(previous, labelNodeToken))
		k.client = append(k.client, newClientKey(previous))
	}
	return k
}

func derive(s Secret, label string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(s), nil, label, keySize)
	if err != nil {
		// Only for a length beyond HKDF's, or a secret too short for FIPS mode,
		// which Check has refused.
		panic(fmt.Sprintf("auth: a key of %d bytes cannot be derived: %v", keySize, err))
	}
	return key
}

// mac is HMAC-SHA256.
func mac(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data) // never fails
	return h.Sum(nil)
}
