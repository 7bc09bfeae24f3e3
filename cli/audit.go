package cli

import (
	"context"

	"github.com/spf13/cobra"

	"kvs/client"
	"kvs/config"
	"kvs/server"
)

// offlineAudit reads the tamper log in the data directory of a node that does
// not run; storedAudit is the one that there is.
type offlineAudit interface {
	// Verify checks the whole log. What is wrong with it is in the report; the
	// error is that it could not be read at all.
	Verify(ctx context.Context, cfg config.Config, o auditVerify) (server.AuditReport, error)
	// Entries calls fn with the entries that the filter chooses, in order, until
	// fn gives an error, which it returns.
	Entries(ctx context.Context, cfg config.Config, f client.AuditFilter, fn func(client.AuditEntry) error) error
}

// auditVerify is what a check is given.
type auditVerify struct {
	// Witnessed gives the checkpoints that others keep of the node with this UUID.
	// It is called once.
	Witnessed func(ctx context.Context, node string) []client.AuditCheckpoint
	// Progress is told the number of the last entry read, now and then.
	Progress func(n uint64)
}

// auditReport is what a check found, and who was asked for it.
type auditReport struct {
	server.AuditReport
	Peers []auditPeer `json:"peers"`
}

// auditPeer is a node that was asked what it has witnessed.
type auditPeer struct {
	URL         string `json:"url"`
	Checkpoints int    `json:"checkpoints"`
	Error       string `json:"error,omitempty"`
}

// storedAudit reads the real thing.
type storedAudit struct{}

func (storedAudit) Verify(ctx context.Context, cfg config.Config, o auditVerify) (server.AuditReport, error) {
	return server.OfflineAudit{Config: cfg}.Verify(ctx, func(ctx context.Context, node string) (list []server.AuditCheckpoint) {
		for _, c := range o.Witnessed(ctx, node) {
			list = append(list, server.AuditCheckpoint(c))
		}
		return list
	}, o.Progress)
}

func (storedAudit) Entries(ctx context.Context, cfg config.Config, f client.AuditFilter, fn func(client.AuditEntry) error) error {
	query := map[string]string{}
	for name, values := range f.Query() {
		query[name] = values[0]
	}
	return server.OfflineAudit{Config: cfg}.Entries(ctx, query, func(e server.AuditEntry) error { return fn(client.AuditEntry(e)) })
}

func newAudit(offline offlineAudit) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check and read the tamper log",
		Long: `Check and read a node's tamper log: which changes were made through it, by whom,
and which attempts it refused.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuditVerify(offline), newAuditLs(offline))
	return cmd
}
