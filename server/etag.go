package server

import (
	"net/http"
	"strings"

	"kvs/storage"
	"kvs/types"
)

// etags is a parsed If-Match or If-None-Match (RFC 9110, 13.1): "*", or a list
// of entity tags.
type etags struct {
	any  bool
	list []etag
}

type etag struct {
	value string // without its quotes
	weak  bool
}

// conditions are the preconditions of a request; nil where there are none.
type conditions struct {
	match, noneMatch *etags
}

func parseConditions(h http.Header) (c conditions, err error) {
	if c.match, err = parseETags(h, "If-Match"); err != nil {
		return c, err
	}
	c.noneMatch, err = parseETags(h, "If-None-Match")
	return c, err
}

func (c conditions) any() bool { return c.match != nil || c.noneMatch != nil }

// parseETags reads a header; several fields of one name are one list.
func parseETags(h http.Header, name string) (*etags, error) {
	fields, ok := h[name]
	if !ok {
		return nil, nil
	}
	e, ok := parseETagList(strings.Join(fields, ","))
	if !ok {
		return nil, invalidParameter.refuse(`%s: want * or entity tags in double quotes, such as "0190b6c2-…": the uuid of a version`, name)
	}
	return e, nil
}

func parseETagList(s string) (*etags, bool) {
	const ows = " \t"
	if strings.Trim(s, ows) == "*" {
		return &etags{any: true}, true
	}
	e := &etags{}
	for s = strings.TrimLeft(s, ows+","); s != ""; s = strings.TrimLeft(s, ows+",") {
		var tag etag
		s, tag.weak = strings.CutPrefix(s, "W/")
		if s == "" || s[0] != '"' {
			return nil, false
		}
		var closed bool
		if tag.value, s, closed = strings.Cut(s[1:], `"`); !closed {
			return nil, false
		}
		for _, c := range []byte(tag.value) {
			if c <= ' ' || c == 0x7f {
				return nil, false
			}
		}
		// The next one follows a comma, or nothing does.
		if s = strings.TrimLeft(s, ows); s != "" && s[0] != ',' {
			return nil, false
		}
		e.list = append(e.list, tag)
	}
	return e, len(e.list) > 0
}

// strong is the comparison of If-Match: a weak tag never matches. Our own tags
// are strong: the uuid of a version stands for one sequence of bytes.
func (e *etags) strong(id types.VersionID) bool {
	return e.any || e.has(id, false)
}

// weak is the comparison of If-None-Match.
func (e *etags) weak(id types.VersionID) bool {
	return e.any || e.has(id, true)
}

func (e *etags) has(id types.VersionID, weak bool) bool {
	text := id.String()
	for _, t := range e.list {
		if t.value == text && (weak || !t.weak) {
			return true
		}
	}
	return false
}

// guard gives the check that the committer runs against the live record before
// a write, nil where nothing is asked. A delete of what is not there is not
// found, whatever was asked: preconditions count only where the answer would be
// a success without them (RFC 9110, 13.2.1).
func (c conditions) guard(del bool) guard {
	if !c.any() {
		return nil
	}
	return func(v *storage.View) error {
		cur := v.Current
		switch {
		case cur == nil && del:
			return types.ErrNotFound
		case cur == nil && c.match != nil:
			return preconditionFail.refuse("If-Match: the key has no value")
		case cur == nil:
			return nil
		case c.match != nil && !c.match.strong(cur.UUID):
			return preconditionFail.refuse("If-Match: the current version is %s", cur.UUID)
		case c.noneMatch != nil && c.noneMatch.weak(cur.UUID):
			return preconditionFail.refuse("If-None-Match: the current version is %s", cur.UUID)
		}
		return nil
	}
}
