package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"kvs/features/tamperlog"
)

var (
	descAuditLast      = desc("audit_last_entry", "Number of the last entry of the tamper log; 0 if none is kept.")
	descAuditRefused   = desc("audit_refused_total", "Refused attempts that the tamper log was told of.")
	descAuditUnlisted  = desc("audit_refused_unlisted_total", "Those of them that it only counts.")
	descAuditWitnessed = desc("audit_witnessed_total", "Checkpoints of other nodes' tamper logs that were kept.")
	descAuditConflicts = desc("audit_conflicts_total", "Checkpoints that contradict an earlier one: a log was rewritten, or its disk restored.")
	descLimited        = desc("rate_limited_total", "Requests refused because the client made too many.")
	descClients        = desc("rate_limit_clients", "Clients whose requests are counted apart.")
	descOverflowed     = desc("rate_limit_overflowed_total", "Requests counted together because there are too many clients.")
	descAuthProblems   = desc("auth_unreadable_records", "Records of users, groups and tokens that this version cannot read.")
	descCertExpires    = desc("tls_certificate_expires_seconds", "Unix time at which this node's certificate ends; 0 without TLS.")
)

func (c *collector) collectTrust(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64)) {
	a := c.api
	var log tamperlog.Stats
	if a.audit.log != nil {
		log = a.audit.log.Stats()
	}
	gauge(descAuditLast, float64(log.Last))
	count(descAuditRefused, log.Refused)
	count(descAuditUnlisted, log.Suppressed)
	seen := a.audit.witness.Stats()
	count(descAuditWitnessed, seen.Witnessed)
	count(descAuditConflicts, seen.Conflicts)

	var limited, overflowed uint64
	var clients int
	if l := a.gate.limiter; l != nil {
		limited, overflowed, clients = l.Limited(), l.Overflowed(), l.Clients()
	}
	count(descLimited, limited)
	count(descOverflowed, overflowed)
	gauge(descClients, float64(clients))
	gauge(descAuthProblems, float64(a.people.Problems()))
	expires := 0.0
	if a.port != nil {
		expires = float64(a.port.source.Expires().Unix())
	}
	gauge(descCertExpires, expires)
}
