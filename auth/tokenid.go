package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
)

// The id of a client token, its jti, is 32 characters of base64url:
//
//	offset   0  random (16)
//	offset  16  HMAC-SHA256 of the random bytes, its first 8 bytes (8)
//
// The MAC lets every node tell an id that some node of the cluster made from a
// mistyped one, without having seen the token.
const (
	tokenIDRandom = 16
	tokenIDSize   = tokenIDRandom + 8
)

func (k *clientKey) newTokenID() string {
	for {
		var random [tokenIDRandom]byte
		rand.Read(random[:]) // never fails
		// On a command line a dash in front would be that of a flag.
		if id := k.tokenIDOf(random[:]); id[0] != '-' {
			return id
		}
	}
}

func (k *clientKey) tokenIDOf(random []byte) string {
	id := append(make([]byte, 0, tokenIDSize+24), random...)
	id = append(id, mac(k.tokenID, random)...)
	return base64.RawURLEncoding.EncodeToString(id[:tokenIDSize])
}

// madeID reports whether jti was made with this key, in its one spelling.
func (k *clientKey) madeID(jti string) bool {
	raw, err := base64.RawURLEncoding.DecodeString(jti)
	return err == nil && len(raw) == tokenIDSize && hmac.Equal([]byte(k.tokenIDOf(raw[:tokenIDRandom])), []byte(jti))
}

// MadeID reports whether a token of this id can have been made with one of our
// secrets. So the revoking of a token that no node has noted is told from that
// of a mistyped one.
func (t *ClientTokens) MadeID(jti string) bool {
	for i := range t.keys {
		if t.keys[i].madeID(jti) {
			return true
		}
	}
	return false
}
