package cli

import (
	"bytes"
	"errors"
	"fmt"

	"kvs/client"
)

// importLine makes a put of a line. It keeps nothing of the line itself.
func importLine(line []byte) (client.Op, error) {
	var doc struct {
		Key         *string `json:"key"`
		Value       rawJSON `json:"value"`
		ContentType string  `json:"content_type"` // the value is then base64 of bytes, as export writes them
	}
	if err := decodeLine(line, &doc); err != nil {
		return client.Op{}, err
	}
	switch {
	case doc.Key == nil:
		return client.Op{}, errors.New(`it has no "key"`)
	case doc.Value == nil:
		return client.Op{}, errors.New(`it has no "value"`)
	}
	if err := client.CheckKey(*doc.Key); err != nil {
		return client.Op{}, fmt.Errorf("key %q: %w", *doc.Key, err)
	}
	return client.Op{Op: "put", Key: *doc.Key, Data: []byte(doc.Value), ContentType: doc.ContentType}, nil
}

// rawJSON is json.RawMessage, and tells null from absent.
type rawJSON []byte

// UnmarshalJSON keeps the text as it is.
func (r *rawJSON) UnmarshalJSON(b []byte) error {
	*r = bytes.Clone(b)
	return nil
}
