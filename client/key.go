package client

import (
	"fmt"
	"net/url"
	"strings"

	"kvs/types"
)

// CheckKey tells whether the store takes key, with the store's own rules. The
// error is types.ErrInvalidKey.
func CheckKey(key string) error {
	k, err := types.ParseKey(key)
	if err != nil {
		return err
	}
	if k.Reserved() {
		return fmt.Errorf("%w: it begins with an underscore, and those names belong to the store", types.ErrInvalidKey)
	}
	return nil
}

// keyPath is the path of a key, each segment escaped by itself.
func keyPath(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	segments := strings.Split(key, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return "/kv/" + strings.Join(segments, "/"), nil
}
