package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"kvs/types"
)

// Handler serves calls of Client.Call: it reads the body, of at most maxBody
// bytes (0: DefaultMaxBody), and sends what serve gives. The body is serve's to
// keep. Errors become problem documents.
func Handler(maxBody int64, log *slog.Logger, serve func(ctx context.Context, body []byte) ([]byte, error)) http.Handler {
	if maxBody == 0 {
		maxBody = DefaultMaxBody
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	decoder := newDecoder(maxBody)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeError(w, &Error{http.StatusMethodNotAllowed, "method_not_allowed", "only POST is allowed here"})
			return
		}
		body, _, err := readBody(r.Body, r.ContentLength, r.Header.Get("Content-Encoding"), maxBody, decoder)
		if err != nil {
			status := http.StatusBadRequest
			if errors.Is(err, errTooLarge) {
				status = http.StatusRequestEntityTooLarge
			}
			writeError(w, &Error{status, "invalid_body", err.Error()})
			return
		}
		answer, err := serve(r.Context(), body)
		if err != nil {
			e := asError(err)
			// A caller that went away is its own business.
			if e.Status == http.StatusInternalServerError && r.Context().Err() == nil {
				log.Error("a call of another node failed", "path", r.URL.Path, "from", r.RemoteAddr, "error", err)
			}
			writeError(w, e)
			return
		}
		if r.Header.Get("Accept-Encoding") == encodingZstd {
			var encoding string
			if answer, encoding = compress(answer); encoding != "" {
				w.Header().Set("Content-Encoding", encoding)
			}
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer) // the caller sees a cut answer as one
	})
}

// asError maps what the packages below say onto an answer.
func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, types.ErrDiskFull):
		return &Error{http.StatusInsufficientStorage, "disk_full", err.Error()}
	case errors.Is(err, types.ErrClosed):
		return &Error{http.StatusServiceUnavailable, "shutting_down", err.Error()}
	case errors.Is(err, types.ErrCorrupt):
		return &Error{http.StatusInternalServerError, "corrupt_record", err.Error()}
	}
	return &Error{http.StatusInternalServerError, "internal", err.Error()}
}
