package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"kvs/utils/privatefile"
)

// maxFile bounds what is read of a file. The bundle of all public CAs has a
// quarter of it.
const maxFile = 1 << 20

const certificateType = "CERTIFICATE"

// readCertificates reads a PEM file with one certificate or more; what says
// which file it is. Blocks of other types between them are passed over, as many
// tools write them.
func readCertificates(what, path string) ([]*x509.Certificate, error) {
	data, err := privatefile.Read(what, path, "certificates", 0, maxFile)
	if err != nil {
		return nil, err
	}
	blocks, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s %s %w", what, path, err)
	}
	var list []*x509.Certificate
	keys := false
	for _, b := range blocks {
		keys = keys || strings.HasSuffix(b.Type, "PRIVATE KEY")
		if b.Type != certificateType {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s %s: certificate %d in it is damaged: %w", what, path, len(list)+1, err)
		}
		list = append(list, c)
	}
	switch {
	case len(list) > 0:
		return list, nil
	case keys:
		return nil, fmt.Errorf("%s %s holds a private key and no certificate: were the two files mixed up?", what, path)
	}
	return nil, fmt.Errorf("%s %s holds no certificate (a block that begins with -----BEGIN CERTIFICATE-----)", what, path)
}

// readKey reads a PEM file with one private key, which nobody else may read.
func readKey(path string) (crypto.Signer, error) {
	const what = "key file"
	// A group may read it: that is how a service's account gets a file of root.
	data, err := privatefile.Read(what, path, "key", 0o027, maxFile)
	if err != nil {
		return nil, err
	}
	blocks, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s %s %w", what, path, err)
	}
	certificates := false
	for _, b := range blocks {
		certificates = certificates || b.Type == certificateType
		if !strings.HasSuffix(b.Type, "PRIVATE KEY") {
			continue
		}
		if b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["Proc-Type"] != "" {
			return nil, fmt.Errorf("%s %s is encrypted, and there is nobody to ask for its pass phrase: decrypt it with `openssl pkey`", what, path)
		}
		key, err := parseKey(b)
		if err != nil {
			return nil, fmt.Errorf("%s %s is damaged, or of an unknown kind (%s)", what, path, b.Type)
		}
		return key, nil
	}
	if certificates {
		return nil, fmt.Errorf("%s %s holds a certificate and no private key: were the two files mixed up?", what, path)
	}
	return nil, fmt.Errorf("%s %s holds no private key (a block that begins with -----BEGIN PRIVATE KEY-----)", what, path)
}

func parseKey(b *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch b.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	}
	if signer, ok := key.(crypto.Signer); ok && err == nil {
		return signer, nil
	}
	return nil, errors.Join(err, errors.New("no key to sign with"))
}

// decode splits PEM. Package pem passes over blocks that it cannot read; here
// they are an error, since a file that is cut short would else be taken for a
// shorter one.
func decode(data []byte) ([]*pem.Block, error) {
	begun := bytes.Count(data, []byte("-----BEGIN "))
	if begun == 0 {
		if len(data) > 0 && data[0] == 0x30 {
			return nil, errors.New("is not PEM, but looks like DER: convert it with `openssl x509 -inform der` or `openssl pkey -inform der`")
		}
		return nil, errors.New("is not PEM: it has no line that begins with -----BEGIN")
	}
	var blocks []*pem.Block
	for {
		b, rest := pem.Decode(data)
		if b == nil {
			break
		}
		blocks, data = append(blocks, b), rest
	}
	if len(blocks) != begun {
		return nil, fmt.Errorf("is damaged or cut short: %d of %d blocks of PEM can be read", len(blocks), begun)
	}
	return blocks, nil
}
