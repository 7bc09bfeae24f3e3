package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"kvs/types"
)

// problem is one row of the table of all refusals: what a code means, once.
type problem struct {
	status int
	code   string // stable, for programs
	title  string // for people
	// retryAfter, in seconds, is sent where it is not 0: with every 503 and 507.
	retryAfter int
}

// The refusals. A code never changes its meaning.
var (
	badRequest       = &problem{400, "bad_request", "Malformed request", 0}
	invalidKey       = &problem{400, "invalid_key", "Invalid key", 0}
	invalidJSON      = &problem{400, "invalid_json", "Invalid JSON", 0}
	invalidParameter = &problem{400, "invalid_parameter", "Invalid parameter", 0}
	invalidBody      = &problem{400, "invalid_body", "Invalid body", 0}
	unauthorized     = &problem{401, "unauthorized", "Not authenticated", 0}
	forbidden        = &problem{403, "forbidden", "Not allowed", 0}
	keyNotFound      = &problem{404, "key_not_found", "Key not found", 0}
	revisionNotFound = &problem{404, "revision_not_found", "Version not found", 0}
	notFound         = &problem{404, "not_found", "Not found", 0}
	memberNotFound   = &problem{404, "member_not_found", "Member not found", 0}
	userNotFound     = &problem{404, "user_not_found", "User not found", 0}
	groupNotFound    = &problem{404, "group_not_found", "Group not found", 0}
	damagedBackup    = &problem{400, "damaged_backup", "Damaged backup", 0}
	tokenNotFound    = &problem{404, "token_not_found", "Token not found", 0}
	featureDisabled  = &problem{404, "feature_disabled", "Feature disabled", 0}
	methodNotAllowed = &problem{405, "method_not_allowed", "Method not allowed", 0}
	bodyTimeout      = &problem{408, "body_timeout", "The body came too slowly", 0}
	sequenceGone     = &problem{410, "sequence_gone", "Events that are not known any more", 0}
	nameTaken        = &problem{409, "name_taken", "Name taken", 0}
	backupBusy       = &problem{409, "backup_busy", "A backup or a restore is under way", 0}
	preconditionFail = &problem{412, "precondition_failed", "Precondition failed", 0}
	valueTooLarge    = &problem{413, "value_too_large", "Value too large", 0}
	batchTooLarge    = &problem{413, "batch_too_large", "Batch too large", 0}
	batchAborted     = &problem{424, "batch_aborted", "Another operation of the batch failed", 0}
	unsupported      = &problem{415, "unsupported_media", "Unsupported media", 0}
	rateLimited      = &problem{429, "rate_limited", "Too many requests", 0}
	headersTooLarge  = &problem{431, "headers_too_large", "Request header fields too large", 0}
	internalError    = &problem{500, "internal", "Internal error", 0}
	corruptRecord    = &problem{500, "corrupt_record", "Corrupt record", 0}
	backupFailed     = &problem{500, "backup_failed", "The backup or restore failed", 0}
	notImplemented   = &problem{501, "not_implemented", "Not implemented", 0}
	joinFailed       = &problem{502, "join_failed", "Could not join", 0}
	readOnly         = &problem{503, "read_only", "The node is read-only", 30}
	syncing          = &problem{503, "syncing", "The node is being filled from a peer", 2}
	clockSkew        = &problem{503, "clock_skew", "The node's clock is wrong", 10}
	shuttingDown     = &problem{503, "shutting_down", "The node is stopping", 1}
	tooManyConns     = &problem{503, "too_many_connections", "Too many connections", 1}
	overloaded       = &problem{503, "overloaded", "Too much at once", 1}
	noPeer           = &problem{503, "no_peer", "No peer can answer", 2}
	notReplicated    = &problem{504, "not_replicated", "Not replicated in time", 0}
	diskFull         = &problem{507, "disk_full", "The disk is nearly full", 30}
)

// problems are all rows, for the metrics, which exist from the start, and for
// what net/http refuses by itself.
var problems = []*problem{
	badRequest, invalidKey, invalidJSON, invalidParameter, invalidBody, unauthorized, forbidden, keyNotFound,
	revisionNotFound, notFound, userNotFound, groupNotFound, tokenNotFound, sequenceGone, nameTaken, rateLimited,
	memberNotFound, featureDisabled, methodNotAllowed, bodyTimeout, preconditionFail, valueTooLarge,
	batchTooLarge, unsupported, batchAborted, headersTooLarge, internalError, corruptRecord, notImplemented, joinFailed,
	damagedBackup, backupBusy, backupFailed,
	readOnly, syncing, clockSkew, shuttingDown, tooManyConns, overloaded, noPeer, notReplicated, diskFull,
}

// sentinels maps what other packages report to the table.
var sentinels = []struct {
	err error
	*problem
}{
	{types.ErrNotFound, keyNotFound},
	{types.ErrInvalidKey, invalidKey},
	{types.ErrPrecond, preconditionFail},
	{types.ErrTooLarge, valueTooLarge},
	{types.ErrDiskFull, diskFull},
	{types.ErrClockSkew, clockSkew},
	{types.ErrCorrupt, corruptRecord},
	{types.ErrClosed, shuttingDown},
	{types.ErrReadOnly, readOnly},
	{types.ErrSyncing, syncing},
}

// refusal is an error that has its row already.
type refusal struct {
	*problem
	detail string
	// members are further members of the problem document: JSON text that
	// begins with a comma.
	members []byte
}

func (r *refusal) Error() string { return r.detail }

// refuse makes a refusal; the detail names the thing and, where there is one,
// the remedy.
func (p *problem) refuse(format string, args ...any) *refusal {
	return &refusal{problem: p, detail: fmt.Sprintf(format, args...)}
}

// refusalOf finds the row of any error. What the table does not know is an
// internal error: its text is for the log, not for the client.
func refusalOf(err error) *refusal {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.refuse("%s", err)
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return shuttingDown.refuse("the request was given up")
	}
	return internalError.refuse("the node's log says more")
}

// writeProblem answers with a problem document (RFC 9457).
func writeProblem(w http.ResponseWriter, r *refusal) {
	h := w.Header()
	h["Content-Type"] = problemType
	delete(h, "Etag")
	if r.retryAfter != 0 {
		h["Retry-After"] = []string{strconv.Itoa(r.retryAfter)}
	}
	b := appendProblem(make([]byte, 0, 256), r)
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(r.status)
	w.Write(b) // the client may be gone, and there is nobody else to tell
}

func appendProblem(b []byte, r *refusal) []byte {
	b = append(b, '{')
	b = appendRefusal(b, r)
	b = append(b, r.members...)
	return append(b, "}\n"...)
}

// appendRefusal appends the members that every refusal has, in a problem
// document and in a batch's results.
func appendRefusal(b []byte, r *refusal) []byte {
	b = append(b, `"title":`...)
	b = appendString(b, r.title)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(r.status), 10)
	b = append(b, `,"code":`...)
	b = appendString(b, r.code)
	b = append(b, `,"detail":`...)
	return appendString(b, r.detail)
}
