package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
)

// trust gives the configuration that trusts the CAs in a file, and no others.
func trust(caFile string) (*tls.Config, error) {
	b, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("CA file %s holds no certificate in PEM (a block that begins with -----BEGIN CERTIFICATE-----)", caFile)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// explaining is a transport whose errors say what to do about a node's
// certificate.
type explaining struct {
	*http.Transport
	caFile string
}

func (t explaining) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	if err != nil {
		err = t.explain(r, err)
	}
	return resp, err
}

func (t explaining) explain(r *http.Request, err error) error {
	var name x509.HostnameError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		if t.caFile != "" {
			return fmt.Errorf("its certificate was not signed by a CA in %s (client.Options.CAFile): %w", t.caFile, err)
		}
		return fmt.Errorf("its certificate was signed by a CA that this machine does not know: name the file with that CA (client.Options.CAFile; kvs: --ca-file or KVS_CA_FILE): %w", err)
	case errors.As(err, &name):
		return fmt.Errorf("its certificate is not for %s; call it by a name that the certificate has: %w", r.URL.Hostname(), err)
	case errors.As(err, new(tls.RecordHeaderError)):
		return fmt.Errorf("it does not speak TLS; its URL begins with http://: %w", err)
	}
	return err
}
