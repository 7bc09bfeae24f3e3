package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// A body must come at bodyRate at least, after bodyGrace: a large upload over a
// slow link takes as long as it takes, while a client that dawdles cannot hold
// a connection for ever.
const (
	bodyGrace = 20 * time.Second
	bodyRate  = 1 << 10 // bytes per second
)

// nodeBodyTimeout bounds the bodies between nodes as a whole.
const nodeBodyTimeout = 5 * time.Minute

// boundBody sets the first deadline of a request's body, also where nobody will
// read it: net/http reads what is left of a short one before it goes on.
func (a *api) boundBody(w http.ResponseWriter, r *http.Request, toNode bool) {
	if r.ContentLength == 0 {
		return
	}
	by := time.Now().Add(a.bodyGrace)
	if toNode {
		by = time.Now().Add(nodeBodyTimeout)
	}
	setReadDeadline(w, by)
}

// setReadDeadline is for connections, which all have deadlines; one that is
// gone needs none.
func setReadDeadline(w http.ResponseWriter, t time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(t)
}

// firstRead is what is allocated for a body before any of it has come: its
// announced length is a claim until then.
const firstRead = 64 << 10

// maxBodies bounds the memory of all bodies beyond their first part. Only what
// has come counts: announcing a large body takes nothing from others.
const maxBodies = 128 << 20

// budget counts memory.
type budget struct{ used atomic.Int64 }

// take reports whether n bytes are to be had; then they are taken until the
// context ends, as a request's does when it is answered.
func (b *budget) take(ctx context.Context, n int64) bool {
	if b.used.Add(n) > maxBodies {
		b.used.Add(-n)
		return false
	}
	context.AfterFunc(ctx, func() { b.used.Add(-n) })
	return true
}

// readBody reads a request's body of limit bytes at most; tooLarge is what to
// say of a larger one. The slice is new, and may be kept. The deadline for its
// first part is set already (see boundBody).
func (a *api) readBody(w http.ResponseWriter, r *request, limit int64, tooLarge *problem) ([]byte, error) {
	over := tooLarge.refuse("the body is larger than the %d bytes that are allowed", limit)
	if r.ContentLength > limit {
		return nil, over
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	// One byte more than announced lets the end be seen without growing.
	size := min(limit, firstRead)
	if r.ContentLength > 0 {
		size = min(r.ContentLength, firstRead)
	}
	b := make([]byte, 0, size+1)
	start := time.Now()
	for first := true; ; first = false {
		if !first {
			setReadDeadline(w, start.Add(a.bodyGrace+time.Duration(len(b))*time.Second/bodyRate))
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return nil, over
		case err == io.EOF:
			// Left in place it would end the watch for a client that goes away,
			// and with it the request's context.
			setReadDeadline(w, time.Time{})
			return b, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, bodyTimeout.refuse("%d bytes came in %s; at least %d bytes per second must", len(b), time.Since(start).Round(time.Second), bodyRate)
		case err != nil:
			return nil, badRequest.refuse("the body cannot be read: %s", err)
		}
		if len(b) == cap(b) {
			size := grown(int64(cap(b)), r.ContentLength)
			if !a.bodies.take(r.Context(), size-int64(cap(b))) {
				return nil, overloaded.refuse("the requests that are being read fill the %d MiB that they may have; come back", maxBodies>>20)
			}
			b = append(make([]byte, 0, size), b...)
		}
	}
}

// grown is the next size of a buffer: twice as large, but no larger than the
// announced length and a byte.
func grown(size, announced int64) int64 {
	if twice := 2 * size; announced < size || twice < announced {
		return twice
	}
	return announced + 1
}
