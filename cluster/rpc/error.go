package rpc

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Error is a call that was answered, but not with 200. A handler returns one to
// choose the answer; any other error of a handler becomes a 500.
type Error struct {
	Status int    // HTTP status
	Code   string // stable problem code; empty if the answer was no problem document
	Detail string // for people
}

// Error gives status, code and detail.
func (e *Error) Error() string {
	text := fmt.Sprintf("status %d", e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// problem is an RFC 9457 document.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// maxProblem bounds how much of an error answer is read, in bytes.
const maxProblem = 16 << 10

func readError(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, Detail: http.StatusText(resp.StatusCode)}
	var p problem
	if json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&p) == nil && p.Code != "" {
		e.Code, e.Detail = p.Code, p.Detail
	}
	return e
}

func writeError(w http.ResponseWriter, e *Error) {
	w.Header().Set("Content-Type", "application/problem+json")
	if e.Status == http.StatusServiceUnavailable || e.Status == http.StatusInsufficientStorage {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(e.Status)
	// The peer may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(problem{http.StatusText(e.Status), e.Status, e.Detail, e.Code})
}
