package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"kvs/types"
)

// Problem is the store's refusal of a call (RFC 9457). Code is stable and meant
// for programs; Title and Detail are meant for people.
type Problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	// RetryAfter is how long the node asked to wait; negative where it did not.
	RetryAfter time.Duration `json:"-"`
	// UUID, Timestamp and Replicas are those of a write that is kept, though not
	// enough nodes had it in time (code "not_replicated").
	UUID      string `json:"uuid,omitempty"`
	Timestamp int64  `json:"timestamp,omitempty"`
	Replicas  int    `json:"replicas,omitempty"`
	// Results are those of the operations of an atomic batch that failed.
	Results []BatchResult `json:"results,omitempty"`
}

// Error puts what happened before its code.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Code == "" {
		return fmt.Sprintf("%s (status %d)", text, p.Status)
	}
	return fmt.Sprintf("%s (%s, status %d)", text, p.Code, p.Status)
}

// Refusals that callers branch on and that only come from a node; the others are
// in package types.
var (
	ErrUnauthorized = errors.New("unauthorized")      // no token, or one that is not good
	ErrForbidden    = errors.New("forbidden")         // the token is good, and does not give this right
	ErrRateLimited  = errors.New("too many requests") // of this client; see Problem.RetryAfter
	ErrNameTaken    = errors.New("name taken")        // another user, or another group, has it
)

// sentinels are the outcomes that callers branch on, whatever the transport.
var sentinels = map[string]error{
	"invalid_key":         types.ErrInvalidKey,
	"key_not_found":       types.ErrNotFound,
	"not_found":           types.ErrNotFound,
	"member_not_found":    types.ErrNotFound,
	"user_not_found":      types.ErrNotFound,
	"group_not_found":     types.ErrNotFound,
	"token_not_found":     types.ErrNotFound,
	"precondition_failed": types.ErrPrecond,
	"value_too_large":     types.ErrTooLarge,
	"batch_too_large":     types.ErrTooLarge,
	"read_only":           types.ErrReadOnly,
	"syncing":             types.ErrSyncing,
	"clock_skew":          types.ErrClockSkew,
	"disk_full":           types.ErrDiskFull,
	"corrupt_record":      types.ErrCorrupt,
	"sequence_gone":       ErrSequenceGone,
	"shutting_down":       types.ErrClosed,
	"unauthorized":        ErrUnauthorized,
	"forbidden":           ErrForbidden,
	"rate_limited":        ErrRateLimited,
	"name_taken":          ErrNameTaken,
}

// proxied are the refusals that a proxy in between makes too, without a code.
var proxied = map[int]error{
	http.StatusUnauthorized:    ErrUnauthorized,
	http.StatusForbidden:       ErrForbidden,
	http.StatusTooManyRequests: ErrRateLimited,
}

// Is makes errors.Is find the sentinel that the code stands for.
func (p *Problem) Is(target error) bool {
	err, ok := sentinels[p.Code]
	if p.Code == "" {
		err, ok = proxied[p.Status]
	}
	return ok && err == target
}

// parseProblem also takes answers that are no problem documents: a proxy in
// between writes what it likes.
func parseProblem(status int, header http.Header, body []byte) *Problem {
	p := &Problem{}
	if json.Unmarshal(body, p) != nil {
		*p = Problem{Detail: excerpt(body)}
	}
	p.Status = status
	p.RetryAfter = retryAfter(header)
	if p.Title == "" {
		p.Title = http.StatusText(status)
	}
	return p
}

func excerpt(body []byte) string {
	const most = 200
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "?")), " ")
	if len(text) <= most {
		return text
	}
	cut := most
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
