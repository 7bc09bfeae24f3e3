package server

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"sync"
	"unicode/utf8"

	"kvs/types"
)

// Values of headers, shared by all answers: net/http only reads them, and
// setting them by their canonical name saves an allocation and a look-up each.
var (
	jsonType    = []string{"application/json"}
	problemType = []string{"application/problem+json"}
)

// octetStream is the content type of bytes that came without one.
const octetStream = "application/octet-stream"

// buffers are for answers. Answers are written by appending: no reflection, and
// the value's bytes are copied once.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// maxPooled keeps the odd huge answer from staying in memory.
const maxPooled = 1 << 20

// writeJSON answers with the JSON text that build appends.
func writeJSON(w http.ResponseWriter, status int, build func(b []byte) []byte) {
	p := buffers.Get().(*[]byte)
	b := build((*p)[:0])
	send(w, status, jsonType, b)
	if cap(b) <= maxPooled {
		*p = b
		buffers.Put(p)
	}
}

// send answers with a body. net/http finds the length of a short one itself.
func send(w http.ResponseWriter, status int, contentType []string, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	if len(body) >= 2<<10 {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	w.Write(body) // an error means that the client is gone
}

// appendRecord appends the members of a version: uuid, timestamp, data and what
// is optional.
func appendRecord(b []byte, rec *types.Record, withData bool) []byte {
	b = appendVersion(b, &rec.Version)
	if withData {
		b = append(b, `,"data":`...)
		b = appendValue(b, rec)
	}
	if rec.ExpiresAt != 0 {
		b = append(b, `,"expires_at":`...)
		b = strconv.AppendInt(b, rec.ExpiresAt, 10)
	}
	if rec.Raw() {
		b = append(b, `,"content_type":`...)
		b = appendString(b, contentType(rec))
	}
	return b
}

// appendVersion appends the members "uuid" and "timestamp".
func appendVersion(b []byte, v *types.Version) []byte {
	b = append(b, `"uuid":"`...)
	b = appendUUID(b, v.UUID)
	b = append(b, `","timestamp":`...)
	return strconv.AppendInt(b, v.Timestamp.Millis(), 10)
}

// appendValue appends a value: JSON byte for byte, bytes as base64, and null for
// a tombstone.
func appendValue(b []byte, rec *types.Record) []byte {
	switch {
	case rec.Tombstone():
		return append(b, "null"...)
	case rec.Raw():
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, rec.Value)
		return append(b, '"')
	}
	return append(b, rec.Value...)
}

// contentType is that of the value itself, as ?raw answers it.
func contentType(rec *types.Record) string {
	switch {
	case !rec.Raw():
		return "application/json"
	case rec.Meta.ContentType == "":
		return octetStream
	}
	return rec.Meta.ContentType
}

func appendUUID[T ~[16]byte](b []byte, id T) []byte {
	b = hex.AppendEncode(b, id[0:4])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[4:6])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[6:8])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[8:10])
	b = append(b, '-')
	return hex.AppendEncode(b, id[10:16])
}

// appendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD:
// keys never hold such bytes, details of errors may quote them.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c < ' ' || c == '"' || c == '\\' {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			default:
				const digits = "0123456789abcdef"
				b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			}
			start = i + 1
		}
		i++
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
