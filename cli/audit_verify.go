package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvs/client"
	"kvs/config"
)

func newAuditVerify(offline offlineAudit) *cobra.Command {
	var peers []string
	cmd := &cobra.Command{
		Use:   "verify [config.yaml]",
		Short: "Find out whether the log of a stopped node was changed",
		Long: `Find out whether the tamper log was changed, in the data directory that the
configuration names (./config.yaml unless another is named). The node must not
run. The exit code is 1 if something is wrong, and each finding is told.

A log that was cut off at its end, or written anew from some point on, may be
consistent in itself. The other nodes witness its checkpoints while it runs: name
them by --peer, and the log is held against what they keep.`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	r := remoteFlags(cmd)
	cmd.Flags().StringArrayVar(&peers, "peer", nil, "URL of another node, to ask what it has witnessed (repeatable)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := r.offlineConfig(args)
		if err != nil {
			return err
		}
		witnesses := &witnesses{r: r, urls: peers, peers: []auditPeer{}}
		found, err := offline.Verify(cmd.Context(), cfg, auditVerify{
			Witnessed: witnesses.ask,
			Progress:  auditProgress(cmd.ErrOrStderr()),
		})
		if err != nil {
			return err
		}
		report := auditReport{found, witnesses.peers}
		if r.json() {
			err = printJSON(cmd.OutOrStdout(), report)
		} else {
			err = report.print(cmd.OutOrStdout())
		}
		return errors.Join(err, report.failed())
	}
	return cmd
}

// offlineConfig reads the configuration of the node whose files are looked at,
// and looks for the secret there too unless --config says otherwise.
func (r *remote) offlineConfig(args []string) (config.Config, error) {
	path := ""
	if len(args) > 0 {
		path = args[0]
	} else if _, err := os.Stat(defaultConfigFile); err == nil {
		path = defaultConfigFile
	}
	if r.config == "" && len(args) > 0 {
		r.config = path
	}
	return config.Load(path, os.Environ())
}

// auditProgress tells now and then how far a check is.
func auditProgress(out io.Writer) func(n uint64) {
	last := time.Now()
	return func(n uint64) {
		if time.Since(last) >= lineEvery {
			last = time.Now()
			fmt.Fprintf(out, "checked %d entries\n", n)
		}
	}
}

// witnesses asks other nodes. One that cannot be asked is told in the report:
// what the others and the log itself say is worth knowing all the same.
type witnesses struct {
	r     *remote
	urls  []string
	peers []auditPeer
}

func (w *witnesses) ask(ctx context.Context, node string) (all []client.AuditCheckpoint) {
	for _, url := range w.urls {
		peer := auditPeer{URL: url}
		found, err := w.askOne(ctx, url, node)
		if err != nil {
			peer.Error = w.r.explain(err).Error()
		}
		peer.Checkpoints = len(found)
		w.peers = append(w.peers, peer)
		all = append(all, found...)
	}
	return all
}

func (w *witnesses) askOne(ctx context.Context, url, node string) ([]client.AuditCheckpoint, error) {
	c, err := w.r.connectTo(url)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Witnessed(ctx, node)
}

func (a auditReport) print(out io.Writer) error {
	span := "none"
	if a.Entries > 0 {
		span = fmt.Sprintf("%d, the last is %d, from %s to %s", a.Entries, a.Last, when(a.FirstTime), when(a.LastTime))
	}
	pairs := []string{
		"node", a.Node,
		"entries", span,
		"head", a.Head,
		"refused", fmt.Sprintf("%s, of which %d are only counted", count(a.Refused, "attempt"), a.Suppressed),
		"witnessed", a.witnessed(),
	}
	for _, p := range a.Peers {
		text := p.URL + ": " + count(p.Checkpoints, "checkpoint")
		if p.Error != "" {
			text = p.URL + ": NOT ASKED: " + strings.ReplaceAll(p.Error, "\n", " ")
		}
		pairs = append(pairs, "peer", text)
	}
	for _, g := range a.Gaps {
		text := fmt.Sprintf("before entry %d, until %s: ", g.Entry, when(g.Time))
		if g.Entry == 0 {
			text = "at the end: "
		}
		pairs = append(pairs, "gap", text+count(g.Records, "record")+" changed without the log")
	}
	for _, p := range a.Problems {
		pairs = append(pairs, "PROBLEM", fmt.Sprintf("%s, entries %d to %d: %s", p.Kind, p.First, p.Last, visible(p.Text)))
	}
	if a.Unlisted > 0 {
		pairs = append(pairs, "unlisted", fmt.Sprintf("%d more problems and gaps", a.Unlisted))
	}
	if len(a.Problems) == 0 {
		pairs = append(pairs, "problems", "none found")
	}
	return details(out, pairs...)
}

func (a auditReport) witnessed() string {
	switch {
	case a.Witnessed > 0:
		return fmt.Sprintf("%s of other nodes agree, up to entry %d", count(a.Witnessed, "checkpoint"), a.WitnessedTo)
	case len(a.Peers) == 0:
		return "nothing: no other node was asked (--peer URL), so a log cut off or written anew may pass"
	}
	return "nothing that agrees"
}

// failed is that the log is not known to be good.
func (a auditReport) failed() error {
	var errs []error
	if n := len(a.Problems); n > 0 {
		errs = append(errs, fmt.Errorf("the tamper log of %s is not as it was written: %s", a.Node, count(n, "problem")))
	}
	for _, p := range a.Peers {
		if p.Error != "" {
			errs = append(errs, fmt.Errorf("%s could not be asked: %s", p.URL, p.Error))
		}
	}
	return errors.Join(errs...)
}
