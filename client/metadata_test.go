package client

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"kvs/types"
)

func TestMetadata(t *testing.T) {
	c, sent := once(t, 200, `{"uuid":"u","timestamp":7,"owner":"root","group":"g","mode":"cdwr:--wr:---r","ttl":"59m0s",
		"expires_at":9,"size":12,"record_size":99,"content_type":"text/plain","origin":"n"}`)
	m, err := c.Metadata(t.Context(), "a b/c")
	want := Metadata{"u", 7, "root", "g", "cdwr:--wr:---r", "59m0s", 9, 12, "text/plain", "n"}
	if err != nil || m != want || *sent != "GET /kv/a%20b/c?metadata=" {
		t.Errorf("%+v, %v, sent %s", m, err, *sent)
	}
}

func TestSetMetadata(t *testing.T) {
	for name, tt := range map[string]struct {
		change MetadataChange
		sent   string
	}{
		"mode":     {MetadataChange{Mode: new("cdwr:----:----")}, `PUT /kv/k?metadata= {"mode":"cdwr:----:----"}`},
		"owner":    {MetadataChange{Owner: new("Ada"), Group: new("staff")}, `PUT /kv/k?metadata= {"group":"staff","owner":"Ada"}`},
		"ttl":      {MetadataChange{TTL: new(90 * time.Second)}, `PUT /kv/k?metadata= {"ttl":"1m30s"}`},
		"no ttl":   {MetadataChange{TTL: new(time.Duration(0))}, `PUT /kv/k?metadata= {"ttl":"0s"}`},
		"replicas": {MetadataChange{Mode: new("m"), Replicas: Replicas{W: "2", Timeout: time.Second}}, `PUT /kv/k?metadata=&timeout=1s&w=2 {"mode":"m"}`},
	} {
		t.Run(name, func(t *testing.T) {
			c, sent := once(t, 200, `{"uuid":"u","timestamp":7}`)
			w, err := c.SetMetadata(t.Context(), "k", tt.change)
			if err != nil || w != (Written{UUID: "u", Timestamp: 7}) || *sent != tt.sent {
				t.Errorf("%+v, %v\nsent %s\nwant %s", w, err, *sent, tt.sent)
			}
		})
	}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Match") != `"v"` {
			t.Errorf("If-Match %q", r.Header.Get("If-Match"))
		}
		problem(w, 412, "precondition_failed", "another version")
	})
	if _, err := c.SetMetadata(t.Context(), "k", MetadataChange{Mode: new("m"), IfMatch: "v"}); !errors.Is(err, types.ErrPrecond) {
		t.Error(err)
	}
	for _, key := range []string{"", "_range", "a//b"} {
		_, get := c.Metadata(t.Context(), key)
		_, set := c.SetMetadata(t.Context(), key, MetadataChange{})
		if !errors.Is(get, types.ErrInvalidKey) || !errors.Is(set, types.ErrInvalidKey) {
			t.Errorf("%q: %v, %v", key, get, set)
		}
	}
}
