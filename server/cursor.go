package server

import (
	"encoding/base64"

	"kvs/storage"
	"kvs/types"
)

// A cursor is the direction and the key to go on at, in base64.
const (
	forwards  = 'f'
	backwards = 'r'
)

func appendCursor(b []byte, page *storage.ScanPage, reverse bool) []byte {
	b = append(b, `,"next_cursor":"`...)
	if page.More {
		direction := forwards
		if reverse {
			direction = backwards
		}
		b = base64.RawURLEncoding.AppendEncode(b, []byte(string(direction)+string(page.Next)))
	}
	return append(b, '"')
}

func parseCursor(s string, reverse bool) (types.Key, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 2 || len(b) > 1+types.MaxInternalKeyLen+1 || b[0] != forwards && b[0] != backwards {
		return "", invalidParameter.refuse(`parameter "cursor": %.40q is not a next_cursor of this call`, s)
	}
	if reverse != (b[0] == backwards) {
		return "", invalidParameter.refuse(`parameter "cursor": it belongs to a range in the other direction`)
	}
	return types.Key(b[1:]), nil
}
