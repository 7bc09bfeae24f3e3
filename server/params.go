package server

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// params are a request's query parameters, checked against those that the route
// knows: a misspelt one is refused by name, since an ignored one would be taken
// for obeyed.
type params map[string]string

func parseParams(r *request, known ...string) (params, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidParameter.refuse("the query string cannot be read: %s", err)
	}
	p := make(params, len(q))
	for name, values := range q {
		switch {
		case !slices.Contains(known, name):
			if len(known) == 0 {
				return nil, invalidParameter.refuse("unknown parameter %q: this call takes none", name)
			}
			return nil, invalidParameter.refuse("unknown parameter %q: this call takes %s", name, strings.Join(known, ", "))
		case len(values) > 1:
			return nil, invalidParameter.refuse("parameter %q is given %d times", name, len(values))
		case !utf8.ValidString(values[0]):
			return nil, invalidParameter.refuse("parameter %q is not valid UTF-8", name)
		}
		p[name] = values[0]
	}
	return p, nil
}

func (p params) has(name string) bool {
	_, ok := p[name]
	return ok
}

// flag reads a parameter that may stand alone: ?raw is ?raw=true.
func (p params) flag(name string) (bool, error) {
	v, ok := p[name]
	switch {
	case !ok:
		return false, nil
	case v == "", v == "true", v == "1":
		return true, nil
	case v == "false", v == "0":
		return false, nil
	}
	return false, invalidParameter.refuse("parameter %q: want true or false, not %q", name, v)
}

// integer reads a number in [lo, hi], def where it is absent.
func (p params) integer(name string, def, lo, hi int) (int, error) {
	v, ok := p[name]
	if !ok {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		return 0, invalidParameter.refuse("parameter %q: want a number from %d to %d, not %q", name, lo, hi, v)
	}
	return n, nil
}

// text reads a bound of keys, which need not be a key.
func (p params) text(name string, most int) (string, error) {
	v := p[name]
	if len(v) > most {
		return "", invalidParameter.refuse("parameter %q has %d bytes, %d are allowed", name, len(v), most)
	}
	return v, nil
}

// duration reads a duration in [lo, hi], def where it is absent.
func (p params) duration(name string, def, lo, hi time.Duration) (time.Duration, error) {
	v, ok := p[name]
	if !ok {
		return def, nil
	}
	d, err := parseDuration(v)
	if err != nil || d < lo || d > hi {
		return 0, invalidParameter.refuse("parameter %q: want a duration from %s to %s such as 30s, 1h or 7d, not %q", name, lo, hi, v)
	}
	return d, nil
}
