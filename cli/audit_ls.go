package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvs/client"
	"kvs/utils/duration"
)

func newAuditLs(offline offlineAudit) *cobra.Command {
	var (
		f            client.AuditFilter
		since, until string
		limit        int
	)
	cmd := &cobra.Command{
		Use:   "ls [config.yaml]",
		Short: "List the entries of the log, oldest first",
		Long: `List the entries of the tamper log, oldest first: of the node that is asked, or,
where a configuration file is named, of the stopped node that it belongs to.

--since and --until take a time like 2026-01-31T15:04:05Z, Unix milliseconds, or
how long ago, like 90m or 7d.

  kvs audit ls --since 1h --action refused
  kvs audit ls --key users/ --who root -o json`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	r := remoteFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&since, "since", "", "from this time on")
	flags.StringVar(&until, "until", "", "before this time")
	flags.StringVar(&f.Who, "who", "", "of this subject: a user's UUID, root, anonymous, or node: and a node's UUID")
	flags.StringVar(&f.Key, "key", "", "about keys that begin with this")
	flags.StringVar(&f.Action, "action", "", "of this kind: put, delete, metadata, merge, refused, opened, gap")
	flags.IntVar(&limit, "limit", 0, "this many at most (default all)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return usagef("--limit must not be negative")
		}
		var err error
		now := time.Now()
		if f.Since, err = parseMoment("since", since, now); err != nil {
			return err
		}
		if f.Until, err = parseMoment("until", until, now); err != nil {
			return err
		}
		f.PageSize = min(limit, 1000)
		out := bufio.NewWriter(cmd.OutOrStdout())
		n := 0
		err = auditEntries(cmd.Context(), r, offline, args, f, func(e client.AuditEntry) error {
			if err := printAuditEntry(out, e, r.json()); err != nil {
				return err
			}
			if n++; n == limit {
				return errEnough
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			err = nil
		}
		if err != nil {
			out.Flush() // what was listed so far; the first error is the one to tell
			return err
		}
		return out.Flush()
	}
	return cmd
}

// errEnough ends a list at its limit.
var errEnough = errors.New("enough")

// auditEntries calls fn with the entries of a file's node, or of the one that is
// asked.
func auditEntries(ctx context.Context, r *remote, offline offlineAudit, args []string, f client.AuditFilter,
	fn func(client.AuditEntry) error) error {
	if len(args) > 0 {
		cfg, err := r.offlineConfig(args)
		if err != nil {
			return err
		}
		return offline.Entries(ctx, cfg, f, fn)
	}
	c, err := r.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	for e, err := range c.AuditEntries(ctx, f) {
		if err == nil {
			err = fn(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseMoment reads a time, Unix milliseconds, or how long ago.
func parseMoment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms > 0 {
		return time.UnixMilli(ms), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if ago, err := duration.Parse(s); err == nil {
		return now.Add(-ago), nil
	}
	return time.Time{}, usagef("--%s: %q is no time: write it like 2026-01-31T15:04:05Z, as Unix milliseconds, or as how long ago: 90m, 7d", flag, s)
}

// printAuditEntry writes an entry on one line, its parts separated by tabs: number,
// time, action, who from where, key, versions and detail.
func printAuditEntry(out io.Writer, e client.AuditEntry, asJSON bool) error {
	if asJSON {
		return printJSON(out, e)
	}
	who := cmp.Or(e.Who, "-")
	if e.From != "" {
		who += " from " + e.From
	}
	key := e.Key
	if e.Namespace != "" && e.Namespace != "data" {
		key = e.Namespace + ":" + key
	}
	var what []string
	if e.Before != "" || e.After != "" {
		what = append(what, cmp.Or(e.Before, "-")+" -> "+cmp.Or(e.After, "-"))
	}
	if e.Count > 1 {
		what = append(what, fmt.Sprintf("%d times", e.Count))
	}
	if e.Detail != "" {
		what = append(what, e.Detail)
	}
	cells := []string{strconv.FormatUint(e.N, 10), when(e.Time), e.Action, who, cmp.Or(key, "-"), cmp.Or(strings.Join(what, "; "), "-")}
	for i, c := range cells {
		cells[i] = visible(c)
	}
	_, err := fmt.Fprintln(out, strings.Join(cells, "\t"))
	return err
}
