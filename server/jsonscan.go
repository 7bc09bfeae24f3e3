package server

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxJSONDepth bounds nesting, as encoding/json does.
const maxJSONDepth = 10_000

// scanner walks one JSON text (RFC 8259) in place. It finds where values begin
// and end and builds nothing, so that a value can be kept byte for byte and a
// batch of many values is passed over once. encoding/json validates three times
// slower, and takes strings that are not UTF-8, which would make our own
// answers invalid JSON.
type scanner struct {
	b []byte
	i int // the next byte
}

// errJSONEnd is where a text ends too early.
var errJSONEnd = errors.New("the JSON text ends in the middle of a value")

// validJSON checks that b is one JSON value, and gives it without the white
// space around.
func validJSON(b []byte) ([]byte, error) {
	s := scanner{b: b}
	s.space()
	start := s.i
	if err := s.value(0); err != nil {
		return nil, err
	}
	end := s.i
	s.space()
	if s.i != len(b) {
		return nil, s.fail("after the value")
	}
	return b[start:end], nil
}

// fail describes the byte at the scanner's place.
func (s *scanner) fail(where string) error {
	if s.i >= len(s.b) {
		return errJSONEnd
	}
	return fmt.Errorf("unexpected %q %s, at byte %d", s.b[s.i], where, s.i)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek gives the next byte, 0 at the end (a NUL is valid nowhere in JSON).
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// value passes over one value, which begins at the scanner's place.
func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case c == '"':
		return s.str()
	case c == '{':
		return s.object(depth, nil)
	case c == '[':
		return s.array(depth, nil)
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	return s.fail("where a value should begin")
}

// object passes over an object. member, if not nil, is called with each
// member's name, as written with its quotes, when the scanner is at its value;
// it must pass over the value.
func (s *scanner) object(depth int, member func(name []byte) error) error {
	return s.list(depth, '{', '}', func() error {
		if s.peek() != '"' {
			return s.fail("where a member's name should begin")
		}
		start := s.i
		if err := s.str(); err != nil {
			return err
		}
		name := s.b[start:s.i]
		s.space()
		if s.peek() != ':' {
			return s.fail("after a member's name")
		}
		s.i++
		s.space()
		if member != nil {
			return member(name)
		}
		return s.value(depth + 1)
	})
}

// array passes over an array. element, if not nil, is called when the scanner
// is at each element, and must pass over it.
func (s *scanner) array(depth int, element func() error) error {
	if element == nil {
		element = func() error { return s.value(depth + 1) }
	}
	return s.list(depth, '[', ']', element)
}

// list passes over what stands between brackets, separated by commas.
func (s *scanner) list(depth int, open, closing byte, item func() error) error {
	if s.peek() != open {
		return s.fail("where a list should begin")
	}
	if depth >= maxJSONDepth {
		return fmt.Errorf("nested deeper than %d", maxJSONDepth)
	}
	s.i++
	s.space()
	if s.peek() == closing {
		s.i++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
			s.space()
		case closing:
			s.i++
			return nil
		default:
			return s.fail("where a comma or the end should be")
		}
	}
}

func (s *scanner) word(w string) error {
	for k := range len(w) {
		if s.peek() != w[k] {
			return s.fail("in a word")
		}
		s.i++
	}
	return nil
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.peek() == '.' {
		s.i++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		return s.digits()
	}
	return nil
}

func (s *scanner) digits() error {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	if s.i == start {
		return s.fail("in a number")
	}
	return nil
}

// str passes over a string.
func (s *scanner) str() error {
	start := s.i
	ascii := true
	for i := s.i + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			if !ascii && !utf8.Valid(s.b[start:s.i]) {
				return fmt.Errorf("the string at byte %d is not valid UTF-8", start)
			}
			return nil
		case c == '\\':
			n := escape(s.b[i:])
			if n == 0 {
				s.i = i
				return fmt.Errorf("invalid escape in the string at byte %d", i)
			}
			i += n - 1
		case c < ' ':
			s.i = i
			return s.fail("in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	s.i = len(s.b)
	return errJSONEnd
}

// escape gives the length of the escape sequence that b begins with, 0 if it is
// none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
				return 0
			}
		}
		return 6
	}
	return 0
}
