package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"kvs/client"
)

// maxLine bounds a line of input. A value that needs more could not be sent.
const maxLine = client.MaxBatchBytes - 64<<10

// lines reads JSON lines and counts them.
type lines struct {
	name    string // of the input, for errors
	in      *sticky
	scanner *bufio.Scanner
	number  int // of the line that next gave
}

func newLines(name string, r io.Reader) *lines {
	in := &sticky{r: r}
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 64<<10), maxLine)
	return &lines{name: name, in: in, scanner: s}
}

// next gives a line without its end, valid until the next call; io.EOF after
// the last.
func (l *lines) next() ([]byte, error) {
	if l.scanner.Scan() {
		// A damaged file ends in half a line. The damage is what is wrong, not
		// the line.
		if l.in.err != nil && l.in.err != io.EOF {
			return nil, l.failed(l.in.err)
		}
		l.number++
		return l.scanner.Bytes(), nil
	}
	switch err := l.scanner.Err(); {
	case err == nil:
		return nil, io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return nil, &lineError{l.number + 1, fmt.Errorf("it is longer than %d bytes", maxLine)}
	default:
		return nil, l.failed(err)
	}
}

func (l *lines) failed(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it breaks off; is the file complete?")
	}
	return fmt.Errorf("%s, after line %d: %w", l.name, l.number, err)
}

// lineError is what is wrong with one line.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }

func (e *lineError) Unwrap() error { return e.err }

// decodeLine reads one JSON object into v and refuses members that v has not:
// what would be left out silently is a mistake in the file.
func decodeLine(line []byte, v any) error {
	// encoding/json would replace such bytes, in keys too.
	if !utf8.Valid(line) {
		return errors.New("it is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the JSON breaks off")
		}
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more on it than one JSON object")
	}
	return nil
}

// sticky remembers the error that a reader ended with.
type sticky struct {
	r   io.Reader
	err error
}

func (s *sticky) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}
