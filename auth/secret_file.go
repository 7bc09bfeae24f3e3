package auth

import (
	"fmt"
	"io/fs"
	"strings"

	"kvs/utils/privatefile"
)

// A secret file holds one secret a line, white space around it and blank lines
// dropped. The first is the current one; further ones are also accepted, which
// is how a secret is changed while the cluster runs (see RotateAdd).

// maxSecretFile bounds what is read of a secret file, in bytes.
const maxSecretFile = 4096

// forbiddenMode is what others must not have of a secret file. A group may read
// it: that is how a service's account gets a file of root.
const forbiddenMode = 0o027

// readSecretFile gives the secrets of a file, at least one. It refuses a file
// with any of the forbidden permissions; name says in errors what file it is.
func readSecretFile(name, path string, forbidden fs.FileMode) ([]Secret, error) {
	b, err := privatefile.Read(name, path, "secret", forbidden, maxSecretFile)
	if err != nil {
		return nil, err
	}
	return parseSecrets(name+" "+path, string(b))
}

func parseSecrets(name, text string) ([]Secret, error) {
	var secrets []Secret
	for line := range strings.Lines(text) {
		if s := strings.TrimSpace(line); s != "" {
			secrets = append(secrets, Secret(s))
		}
	}
	if len(secrets) == 0 {
		return nil, Secret("").Check(name)
	}
	for i, s := range secrets {
		which := name
		if len(secrets) > 1 {
			which = fmt.Sprintf("secret %d of %s, where each line is one,", i+1, name)
		}
		if err := s.Check(which); err != nil {
			return nil, err
		}
	}
	return secrets, nil
}

// formatSecrets writes what readSecretFile reads.
func formatSecrets(secrets []Secret) []byte {
	var b []byte
	for _, s := range secrets {
		b = append(append(b, s...), '\n')
	}
	return b
}
