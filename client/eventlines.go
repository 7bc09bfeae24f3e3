package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// eventLines reads server-sent events (the HTML standard, 9.2.6).
type eventLines struct {
	r    *bufio.Reader
	most int64 // bytes of one event
}

// eventBlock is what stands up to a blank line.
type eventBlock struct {
	id, event string
	data      []byte // nil: it is no event
}

func newEventLines(r io.Reader, most int64) *eventLines {
	return &eventLines{bufio.NewReaderSize(r, 16<<10), most}
}

// next reads up to the next blank line, and calls alive at each line. A stream
// that ends is io.ErrUnexpectedEOF, since a watch has no end.
func (l *eventLines) next(alive func()) (b eventBlock, err error) {
	size := int64(0)
	for {
		line, err := l.line(l.most - size)
		if err != nil {
			return b, err
		}
		alive()
		size += int64(len(line))
		if len(line) == 0 {
			return b, nil
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(name) {
		case "id":
			b.id = string(value)
		case "event":
			b.event = string(value)
		case "data":
			if b.data != nil {
				b.data = append(b.data, '\n')
			}
			b.data = append(b.data, value...)
		}
	}
}

// line reads a line without its end.
func (l *eventLines) line(most int64) ([]byte, error) {
	var long []byte
	for {
		part, err := l.r.ReadSlice('\n')
		if int64(len(long)+len(part)) > most {
			return nil, notEvents{fmt.Errorf("an event is larger than %d bytes (client.Options.MaxResponse)", l.most)}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
			continue
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		if long != nil {
			part = append(long, part...)
		}
		return bytes.TrimSuffix(part[:len(part)-1], []byte{'\r'}), nil
	}
}

// rest reads an answer that is no stream, as far as that is of interest.
func (l *eventLines) rest() []byte {
	const most = 64 << 10
	b, _ := io.ReadAll(io.LimitReader(l.r, min(most, l.most))) // half a problem is better than none
	return b
}
