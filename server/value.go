package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"time"

	"kvs/types"
	"kvs/utils/duration"
)

// value is what a write stores.
type value struct {
	data        []byte
	raw         bool // bytes, not JSON
	contentType string
	ttl         time.Duration // 0 = never expires
}

const (
	// envelopeRoom is what a body may have beyond a value of max_json_size:
	// the members "data" and "ttl" around it, and white space.
	envelopeRoom = 4 << 10
	// maxContentType bounds a stored content type.
	maxContentType = 255
	// maxTTL keeps expiry times far from overflow.
	maxTTL = 100 * 365 * 24 * time.Hour
)

// readValue reads what a PUT brings.
func (a *api) readValue(w http.ResponseWriter, r *request, p params) (value, error) {
	var v value
	var err error
	if v.ttl, err = p.duration("ttl", a.defaultTTL, 0, maxTTL); err != nil {
		return v, err
	}
	form, err := formOf(r.Header)
	if err != nil {
		return v, err
	}
	limit := a.maxValue
	if form.json {
		limit += envelopeRoom
	}
	body, err := a.readBody(w, r, limit, valueTooLarge)
	if err != nil {
		return v, err
	}
	v.data = body
	if form.json {
		doc, err := validJSON(body)
		if err == nil {
			return a.unwrap(v, doc, p)
		}
		if !form.guess {
			return v, invalidJSON.refuse("%s", err)
		}
	}
	v.raw, v.contentType = true, form.contentType
	return v, a.checkSize(v.data)
}

// form is how a body is to be understood.
type form struct {
	json        bool
	guess       bool // JSON if it parses, else bytes
	contentType string
}

func formOf(h http.Header) (form, error) {
	if h.Get("Content-Encoding") != "" || h.Get("Content-Range") != "" {
		return form{}, unsupported.refuse("Content-Encoding and Content-Range are not understood: send the whole value as it is")
	}
	fields := h["Content-Type"]
	if len(fields) == 0 {
		return form{json: true, guess: true, contentType: octetStream}, nil
	}
	if len(fields) == 1 && fields[0] == "application/json" {
		return form{json: true}, nil
	}
	media, _, err := mime.ParseMediaType(fields[0])
	if err != nil || len(fields) > 1 || len(fields[0]) > maxContentType || !printable(fields[0]) {
		return form{}, invalidParameter.refuse("Content-Type: want one media type of %d bytes at most, such as application/json or text/plain", maxContentType)
	}
	switch media {
	case "application/json":
		return form{json: true}, nil
	case "application/x-www-form-urlencoded":
		// What curl -d says of anything.
		return form{json: true, guess: true, contentType: octetStream}, nil
	}
	return form{contentType: fields[0]}, nil
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// unwrap takes a value out of {"data":…,"ttl":"1h"}, if doc is that.
func (a *api) unwrap(v value, doc []byte, p params) (value, error) {
	v.data = doc
	data, ttl, ok := envelope(doc)
	if !ok {
		return v, a.checkSize(doc)
	}
	if p.has("ttl") {
		return v, invalidParameter.refuse("the ttl is given twice, as a parameter and in the body")
	}
	v.data = data
	var err error
	if v.ttl, err = parseTTL(ttl); err != nil {
		return v, err
	}
	return v, a.checkSize(data)
}

// checkSize bounds a value itself, whatever came around it.
func (a *api) checkSize(data []byte) error {
	if int64(len(data)) > a.maxValue {
		return valueTooLarge.refuse("the value has %d bytes, %d are allowed (max_json_size)", len(data), a.maxValue)
	}
	return nil
}

// parseTTL reads a ttl as JSON gives it.
func parseTTL(text []byte) (time.Duration, error) {
	var s string
	// null would be left as an empty string by encoding/json.
	if json.Unmarshal(text, &s) != nil || s == "" {
		return 0, invalidBody.refuse(`"ttl": want a duration in a string, such as "30s", "1h" or "7d", not %.40s`, text)
	}
	d, err := parseDuration(s)
	if err != nil || d > maxTTL {
		return 0, invalidBody.refuse(`"ttl": want a duration such as "30s", "1h" or "7d", 100 years at most, not %.40q`, s)
	}
	return d, nil
}

// parseDuration reads a duration in whole milliseconds, which is how finely
// time is kept.
func parseDuration(s string) (time.Duration, error) {
	d, err := duration.Parse(s)
	if err != nil {
		return 0, err
	}
	if d%time.Millisecond != 0 {
		return 0, errors.New("it is finer than a millisecond")
	}
	return d, nil
}

// errOther ends the look at an object that is not an envelope.
var errOther = errors.New("another object")

// envelope takes apart a valid JSON object with exactly the members "data" and
// "ttl". It looks no further than the first other one.
func envelope(doc []byte) (data, ttl []byte, ok bool) {
	if len(doc) == 0 || doc[0] != '{' {
		return nil, nil, false
	}
	s := scanner{b: doc}
	err := s.object(0, func(name []byte) error {
		var into *[]byte
		switch memberName(name) {
		case "data":
			into = &data
		case "ttl":
			into = &ttl
		}
		if into == nil || *into != nil {
			return errOther
		}
		start := s.i
		if err := s.value(1); err != nil {
			return err
		}
		*into = doc[start:s.i]
		return nil
	})
	return data, ttl, err == nil && data != nil && ttl != nil
}

// memberName gives a member's name without quotes and escapes.
func memberName(text []byte) string {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1])
	}
	var s string
	if json.Unmarshal(text, &s) != nil {
		return ""
	}
	return s
}

// keyOf gives the key that a request's path names.
func keyOf(r *request) (types.Key, error) { return parseKey(r.PathValue("path")) }

// parseKey checks a key that a client names.
func parseKey(s string) (types.Key, error) {
	key, err := types.ParseKey(s)
	if err != nil {
		return "", err
	}
	if key.Reserved() {
		return "", invalidKey.refuse("keys that begin with an underscore are the store's own")
	}
	return key, nil
}
