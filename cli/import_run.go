package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"kvs/client"
)

const (
	chunkOps   = 500     // half of what a node must take
	chunkBytes = 1 << 20 // of keys and values, unless one alone has more
	inFlight   = 4       // chunks: enough to keep a node's disk busy while others travel
)

// errPrefixChanged says that the input does not begin with the lines that were
// imported before. Nothing has been sent then.
var errPrefixChanged = errors.New("the lines imported before have changed")

// importer cuts lines into chunks and keeps several in flight. All its state
// belongs to the goroutine of run; each other one sends one chunk.
//
// Chunks are consecutive ranges of lines, so that how far the import is done is
// one number: the end of the last chunk before which all are done. Two chunks
// with a key in common are never in flight together, so that the last of several
// lines with one key wins.
type importer struct {
	send      batchFunc
	lines     *lines
	resume    position // skip these lines, which must be those that it hashes
	from      int      // skip the lines before this one
	keepGoing bool
	leftOut   func(error)                        // told of each line left out
	advanced  func(done position, documents int) // told when chunks are done

	sum     hash.Hash // of the lines up to at
	at      int       // the last line that was dealt with
	chunk   *chunk    // being filled
	flying  []*chunk  // sent, in order of their lines; the first is not done, or failed
	landed  chan *chunk
	pending int             // sent and not landed yet
	busy    map[string]bool // the keys of those
	stopped bool            // a chunk failed: nothing more is sent
	result  importResult
}

// importResult is what an import did.
type importResult struct {
	documents int // imported
	leftOut   int // lines
	done      position
	complete  int // every line up to this one is imported or left out
	beyond    int // documents imported behind it
}

// chunk is one call's worth of consecutive lines.
type chunk struct {
	ops     []client.Op
	numbers []int // the line of each op
	size    int
	end     position // its last line
	done    bool
	results []client.BatchResult
	err     error // of the call, then the first that makes the import stop
	failed  int   // the line of that error; 0 = none
	written int   // documents
	before  int   // of these, before the failed line
}

func (im *importer) run(ctx context.Context) (importResult, error) {
	im.sum = sha256.New()
	im.landed = make(chan *chunk, inFlight) // holds all that can be pending: no sender blocks
	im.busy = map[string]bool{}
	im.chunk = &chunk{}
	im.result.done, im.result.complete = im.resume, im.resume.Lines

	var err error
	for err == nil && !im.stopped {
		err = im.readLine(ctx)
	}
	im.flush(ctx) // the lines before a broken one are good
	im.drain()
	if failed := im.finish(); failed != nil {
		return im.result, failed
	}
	if err == io.EOF {
		err = nil
	}
	return im.result, err
}

// readLine deals with one line. io.EOF is the end.
func (im *importer) readLine(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	line, err := im.lines.next()
	number := im.lines.number
	switch {
	case err == io.EOF && number < im.resume.Lines:
		return errPrefixChanged
	case err != nil:
		return err
	case number < im.from, number <= im.resume.Lines, len(bytes.TrimSpace(line)) == 0:
		im.pass(line)
		if number == im.resume.Lines && im.here() != im.resume {
			return errPrefixChanged
		}
		return nil
	}
	op, err := importLine(line)
	if err != nil {
		err = &lineError{number, err}
		if im.keepGoing {
			im.pass(line)
			im.leaveOut(err)
			return nil
		}
		return err
	}
	im.add(ctx, number, op)
	im.pass(line)
	return nil
}

// pass counts a line as dealt with.
func (im *importer) pass(line []byte) {
	im.sum.Write(line)
	im.sum.Write([]byte("\n"))
	im.at = im.lines.number
}

func (im *importer) here() position {
	return position{im.at, hex.EncodeToString(im.sum.Sum(nil))}
}

func (im *importer) leaveOut(err error) {
	im.result.leftOut++
	im.leftOut(err)
}

// add puts a line's operation into the chunk, after the earlier ones are sent
// that must not be in flight with it or have no room for it.
func (im *importer) add(ctx context.Context, number int, op client.Op) {
	size := len(op.Key) + len(op.Data)
	if len(im.chunk.ops) == chunkOps || im.chunk.size > 0 && im.chunk.size+size > chunkBytes {
		im.flush(ctx)
	}
	// After the flush, which may have sent this very key.
	if im.busy[op.Key] {
		im.flush(ctx)
		im.drain()
	}
	c := im.chunk
	c.ops = append(c.ops, op)
	c.numbers = append(c.numbers, number)
	c.size += size
}

// flush sends the chunk, once there is room in flight.
func (im *importer) flush(ctx context.Context) {
	for im.pending == inFlight {
		im.land(<-im.landed)
	}
	c := im.chunk
	if len(c.ops) == 0 || im.stopped {
		return
	}
	c.end = im.here()
	im.chunk = &chunk{}
	im.flying = append(im.flying, c)
	for _, op := range c.ops {
		im.busy[op.Key] = true
	}
	im.pending++
	go func() {
		c.results, c.err = sendChunk(ctx, im.send, c.ops)
		im.landed <- c
	}()
}

// drain waits for all that is in flight.
func (im *importer) drain() {
	for im.pending > 0 {
		im.land(<-im.landed)
	}
}

// land takes the answer to a chunk.
func (im *importer) land(c *chunk) {
	im.pending--
	c.done = true
	for _, op := range c.ops {
		delete(im.busy, op.Key)
	}
	if c.err != nil {
		c.failed = c.numbers[0]
	}
	for i, r := range c.results {
		switch err := r.Err(); {
		case err == nil:
			c.written++
			if c.failed == 0 {
				c.before++
			}
		// From 500 on it is not the line's fault, and so no reason to leave it out.
		case im.keepGoing && r.Status < 500:
			im.leaveOut(&lineError{c.numbers[i], err})
		case c.failed == 0:
			c.failed, c.err = c.numbers[i], &lineError{c.numbers[i], err}
		}
	}
	im.stopped = im.stopped || c.failed > 0
	im.result.documents += c.written

	moved := false
	for len(im.flying) > 0 && im.flying[0].done && im.flying[0].failed == 0 {
		im.result.done, im.result.complete = im.flying[0].end, im.flying[0].end.Lines
		im.flying, moved = im.flying[1:], true
	}
	if moved {
		im.advanced(im.result.done, im.result.documents)
	}
}

// finish says how far the import came, and gives the first failure in the order
// of the lines.
func (im *importer) finish() error {
	if len(im.flying) == 0 {
		// Lines without documents may follow the last chunk.
		im.result.done, im.result.complete = im.here(), im.at
		return nil
	}
	first := im.flying[0]
	im.result.complete = first.failed - 1
	for _, c := range im.flying {
		im.result.beyond += c.written
	}
	im.result.beyond -= first.before
	return first.err
}
