package cli

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvs/utils/certs"
)

func newTLS() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tls",
		Short: "Make the certificates of a cluster",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTLSInit())
	return cmd
}

const tlsInitLong = `Make a CA for a cluster, and a certificate and key for each node. Where there is
a CA already, further certificates are of that one; no file is overwritten.

HOST is what other nodes and clients call a node by: a host name or an IP
address, without the port. A node with several has a name for its files and
all of them after it:

  kvs tls init node1.example node2.example
  kvs tls init 10.0.0.1 10.0.0.2
  kvs tls init node1=node1.example,10.0.0.1 node2=node2.example,10.0.0.2

Every certificate is for localhost, 127.0.0.1 and ::1 too, so that a node can be
asked on its own machine. It is good for 825 days; the CA is for ten years.

--renew makes new certificates for keys that exist, with the same names or with
those given; the keys stay as they are, and need not be here. A running node
takes a renewed file in use within seconds.

Keep ca-key.pem where nobody else gets at it, and off the nodes: who has it can
make a node of anything.`

func newTLSInit() *cobra.Command {
	var t tlsInit
	cmd := &cobra.Command{
		Use:   "init HOST...",
		Short: "Make a CA and certificates for nodes",
		Long:  tlsInitLong,
		Args:  args(cobra.MinimumNArgs(1)),
	}
	cmd.Flags().StringVar(&t.dir, "dir", "tls", "the directory of the files")
	cmd.Flags().BoolVar(&t.renew, "renew", false, "renew the certificates of nodes that have one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		nodes, err := parseTLSNodes(args)
		if err != nil {
			return usageError{err}
		}
		t.out, t.now = cmd.OutOrStdout(), time.Now()
		return t.run(nodes)
	}
	return cmd
}

// everyHost is what each certificate is for beside the node's own hosts.
var everyHost = []string{"localhost", "127.0.0.1", "::1"}

// tlsNode is a node to make a certificate for.
type tlsNode struct {
	name  string // of its files
	hosts []string
	named bool // its hosts were listed
}

var tlsName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func parseTLSNodes(args []string) ([]tlsNode, error) {
	var nodes []tlsNode
	seen := map[string]bool{}
	for _, arg := range args {
		var n tlsNode
		var list string
		if n.name, list, n.named = strings.Cut(arg, "="); n.named {
			n.hosts = strings.Split(list, ",")
		} else {
			n.hosts = []string{arg}
			n.name = strings.ReplaceAll(arg, ":", "-") // of an IPv6 address; not all systems take colons
		}
		for _, host := range n.hosts {
			if err := certs.CheckName(host); err != nil {
				return nil, err
			}
		}
		switch key := strings.ToLower(n.name); { // some systems' files have no case
		case !n.named && !tlsName.MatchString(n.name):
			return nil, fmt.Errorf("give the node of %s a name for its files: NAME=%s", arg, arg)
		case !tlsName.MatchString(n.name) || len(n.name) > 200:
			return nil, fmt.Errorf("%q cannot be the name of a node's files: letters, digits, dots, dashes and underscores, a letter or digit first", n.name)
		case key == "ca" || strings.HasSuffix(key, "-key"):
			return nil, fmt.Errorf("%q cannot be the name of a node's files: others have it", n.name)
		case seen[key]:
			return nil, fmt.Errorf("%s is there twice", n.name)
		default:
			seen[key] = true
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// tlsInit is one run of the command.
type tlsInit struct {
	dir   string
	renew bool
	out   io.Writer
	now   time.Time
}

func (t tlsInit) file(name string) string { return filepath.Join(t.dir, name) }

func (t tlsInit) cert(n tlsNode) string { return t.file(n.name + ".pem") }
func (t tlsInit) key(n tlsNode) string  { return t.file(n.name + "-key.pem") }

func (t tlsInit) run(nodes []tlsNode) error {
	// Everything that can be in the way is looked at before anything is made.
	old := make([]*x509.Certificate, len(nodes))
	for i, n := range nodes {
		var err error
		if t.renew {
			old[i], err = t.oldCert(n)
		} else {
			err = t.checkFree(n)
		}
		if err != nil {
			return err
		}
	}
	ca, err := t.authority()
	if err != nil {
		return err
	}
	for i, n := range nodes {
		if err := t.make(ca, n, old[i]); err != nil {
			return err
		}
	}
	t.explain(nodes)
	return nil
}

func (t tlsInit) checkFree(n tlsNode) error {
	for _, path := range []string{t.cert(n), t.key(n)} {
		switch _, err := os.Lstat(path); {
		case err == nil:
			return fmt.Errorf("%s exists already, and nothing was made; --renew gives the node a new certificate for its key", path)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

func (t tlsInit) oldCert(n tlsNode) (*x509.Certificate, error) {
	c, err := certs.ReadCertificate(t.cert(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s to renew: without --renew it is made", t.cert(n))
	}
	return c, err
}

// authority reads the CA, or makes it where there is none.
func (t tlsInit) authority() (*certs.Authority, error) {
	cert, key := t.file("ca.pem"), t.file("ca-key.pem")
	_, certErr := os.Stat(cert)
	_, keyErr := os.Stat(key)
	noCert, noKey := errors.Is(certErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist)
	switch {
	case noCert && !noKey:
		return nil, fmt.Errorf("there is %s without %s: bring that here, or remove the key if nothing was signed with it", key, cert)
	case noKey && !noCert, noKey && t.renew:
		return nil, fmt.Errorf("there is no %s, the key of the CA, which signs all certificates: run this where it is kept (--dir)", key)
	case !noCert:
		return certs.LoadAuthority(cert, key)
	}
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return nil, err
	}
	// Programs look a CA up by its name, so that no two may have the same.
	name := fmt.Sprintf("kvs cluster CA of %s, %s", t.now.UTC().Format(time.DateOnly), rand.Text()[:8])
	ca, err := certs.NewAuthority(name, t.now)
	if err != nil {
		return nil, err
	}
	if err := ca.Save(cert, key); err != nil {
		return nil, err
	}
	fmt.Fprintf(t.out, "made %s and %s: a CA, good until %s\n", cert, key, ca.Expires().Format(time.DateOnly))
	return ca, nil
}

// make gives a node its files, or a new certificate in the place of old.
func (t tlsInit) make(ca *certs.Authority, n tlsNode, old *x509.Certificate) error {
	var issued *certs.Issued
	var err error
	if old == nil {
		if issued, err = ca.Issue(n.name, append(n.hosts, everyHost...), t.now); err == nil {
			err = issued.Save(t.cert(n), t.key(n))
		}
	} else {
		var hosts []string // those of the old one
		if n.named {
			hosts = append(n.hosts, everyHost...)
		}
		if issued, err = ca.Renew(old, hosts, t.now); err == nil {
			err = issued.SaveRenewed(t.cert(n))
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	made := "made " + t.cert(n) + " and " + t.key(n)
	if old != nil {
		made = "renewed " + t.cert(n)
	}
	fmt.Fprintf(t.out, "%s: for %s; good until %s\n", made, strings.Join(issued.Names, ", "), issued.Expires.Format(time.DateOnly))
	return nil
}

func (t tlsInit) explain(nodes []tlsNode) {
	if t.renew {
		fmt.Fprint(t.out, "\nPut each into the place of the old one on its node. The node takes it in use by itself.\n")
		return
	}
	fmt.Fprint(t.out, "\nCopy ca.pem and a node's own two files to that node, and set in its configuration (with the paths there):\n")
	for _, n := range nodes {
		fmt.Fprintf(t.out, "\n  # %s\n  tls_cert_file: %s\n  tls_key_file: %s\n  tls_ca_file: %s\n", n.name, t.cert(n), t.key(n), t.file("ca.pem"))
	}
	ca, host := t.file("ca.pem"), net.JoinHostPort(nodes[0].hosts[0], "8080")
	if strings.HasPrefix(host, "*") {
		host = "HOST:8080"
	}
	fmt.Fprintf(t.out, `
All nodes of a cluster have TLS, or none. Clients need ca.pem alone:

  curl --cacert %s https://%s/health
  kvs health --ca-file %s --url https://%s

Keep %s off the nodes: who has it can make a node of anything.
`, ca, host, ca, host, t.file("ca-key.pem"))
}
