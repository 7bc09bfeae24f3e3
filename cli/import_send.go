package cli

import (
	"context"
	"errors"
	"net/http"
	"time"

	"kvs/client"
	"kvs/types"
	"kvs/utils/backoff"
)

// batchFunc is client.Client.Batch.
type batchFunc func(ctx context.Context, ops []client.Op, atomic bool) ([]client.BatchResult, error)

// sendTries is how often a chunk is sent before the import stops: over 10 to 20
// seconds, enough for a node that is restarted.
const sendTries = 6

// sendChunk sends puts, again where the node may only be away for a while. The
// client itself repeats nothing that may have been carried out. Here it is
// harmless: putting the same values twice only makes newer versions of them.
func sendChunk(ctx context.Context, send batchFunc, ops []client.Op) ([]client.BatchResult, error) {
	pause := backoff.Backoff{Min: time.Second, Max: 8 * time.Second}
	for try := 1; ; try++ {
		results, err := send(ctx, ops, false)
		if err == nil || try == sendTries || !passing(err) {
			return results, err
		}
		if !backoff.Sleep(ctx, pause.Next()) {
			return nil, ctx.Err()
		}
	}
}

// passing tells whether the reason of a failure may go by itself.
func passing(err error) bool {
	if p := (*client.Problem)(nil); errors.As(err, &p) {
		switch p.Status {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return p.Code != "read_only"
		}
		return false
	}
	return errors.Is(err, types.ErrUnreachable)
}
