package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"kvs/client"
)

const importLong = `Load JSON lines into the store:

  {"key":"users/1","value":{"name":"Ada"}}
  {"key":"users/2","value":"any JSON"}
  {"key":"users/2/photo","value":"iVBORw0K…","content_type":"image/png"}

With a "content_type" the value is bytes, in base64. FILE may be compressed with gzip or zstd, which is found by looking into it; - is
standard input. Of several lines with one key the last one counts.

A line that is broken, or that the node refuses, is named by its number, and the
import stops there; with --keep-going such lines are named and left out.

An import that stopped goes on where it was when the same command is run again:
how far it came is noted in the user's cache directory, together with a hash of
what was read so far and the identity of the node. Where one of them has changed
(the lines imported already were edited, the node is another one or was emptied)
the import begins at line 1. Lines behind that point may be edited freely. A few
lines may be written twice, which changes nothing but their version. Standard
input is not noted: there, and to begin anywhere by hand, use --from-line;
--from-line 1 begins anew.`

func newImport() *cobra.Command {
	var (
		from      int
		keepGoing bool
	)
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Load keys and values from JSON lines",
		Long:  importLong,
		Args:  args(cobra.ExactArgs(1)),
	}
	r := remoteFlags(cmd)
	cmd.Flags().IntVar(&from, "from-line", 0, "begin at this line, whatever was imported before")
	cmd.Flags().BoolVar(&keepGoing, "keep-going", false, "leave broken lines out instead of stopping")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if from < 0 || from == 0 && cmd.Flags().Changed("from-line") {
			return usagef("--from-line counts from 1")
		}
		c, err := r.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		j := importJob{
			file: args[0], from: from, keepGoing: keepGoing, asJSON: r.json(), client: c,
			stdin: cmd.InOrStdin(), stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(),
		}
		return j.run(cmd.Context())
	}
	return cmd
}

// importJob is one run of the command.
type importJob struct {
	file           string
	from           int // 0: where the last run stopped
	keepGoing      bool
	asJSON         bool
	client         *client.Client
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (j *importJob) run(ctx context.Context) error {
	src, err := openSource(j.file, j.stdin)
	if err != nil {
		return err
	}
	defer src.Close()
	place, err := j.resumePoint(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	result, err := j.load(ctx, src, place)
	if errors.Is(err, errPrefixChanged) {
		fmt.Fprintf(j.stderr, "%s was changed in the lines imported before: beginning at line 1\n", j.file)
		place.done = position{}
		again, err := openSource(j.file, j.stdin)
		if err != nil {
			return err
		}
		defer again.Close()
		result, err = j.load(ctx, again, place)
		return errors.Join(j.report(result, time.Since(start)), j.explain(err, result, place))
	}
	return errors.Join(j.report(result, time.Since(start)), j.explain(err, result, place))
}

// resumePoint is where the last run of this command stopped.
func (j *importJob) resumePoint(ctx context.Context) (*bookmark, error) {
	// Asked of every import, so that a node that is not there is told at once.
	health, err := j.client.Health(ctx)
	if err != nil {
		return nil, err
	}
	if j.file == "-" {
		return &bookmark{}, nil
	}
	place, err := openBookmark(j.file, j.client.URL(), health.UUID)
	if err != nil {
		fmt.Fprintf(j.stderr, "how far the import comes cannot be noted: %v\n", err)
		return &bookmark{}, nil
	}
	if j.from > 0 {
		// The lines before are the user's word, which is not for later runs.
		place.done, place.frozen = position{}, true
	} else if place.done.Lines > 0 {
		fmt.Fprintf(j.stderr, "going on after line %d, where the last import of %s stopped (--from-line 1 begins anew)\n",
			place.done.Lines, j.file)
	}
	return place, nil
}

func (j *importJob) load(ctx context.Context, src *source, place *bookmark) (importResult, error) {
	show := newProgress(j.stderr, src.size)
	im := &importer{
		send:      j.client.Batch,
		lines:     newLines(src.name, src),
		resume:    place.done,
		from:      max(j.from, 1),
		keepGoing: j.keepGoing,
		leftOut: func(err error) {
			show.note(fmt.Sprintf("left out: %v", err))
		},
		advanced: func(p position, documents int) {
			show.update(src.read.Load(), documents)
			place.note(p, false)
		},
	}
	result, err := im.run(ctx)
	show.done()
	switch {
	case err == nil:
		place.forget()
	case !errors.Is(err, errPrefixChanged):
		place.note(result.done, true)
	}
	return result, err
}

func (j *importJob) report(r importResult, took time.Duration) error {
	if j.asJSON {
		return printJSON(j.stdout, map[string]any{
			"imported": r.documents, "left_out": r.leftOut, "seconds": took.Seconds(),
		})
	}
	_, err := fmt.Fprintf(j.stdout, "imported %s in %s (%.0f/s)\n", count(r.documents, "document"),
		took.Round(10*time.Millisecond), float64(r.documents)/max(took.Seconds(), 1e-3))
	return err
}

// explain says what is in the store now, and how to go on.
func (j *importJob) explain(err error, r importResult, place *bookmark) error {
	if err == nil {
		if r.leftOut > 0 {
			return fmt.Errorf("%s left out", count(r.leftOut, "line"))
		}
		return nil
	}
	if errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	imported := "nothing is imported"
	if r.complete >= max(j.from, 1) {
		imported = fmt.Sprintf("the lines up to %d are imported", r.complete)
	}
	if r.beyond > 0 {
		imported += fmt.Sprintf(", and %d later ones that were on their way", r.beyond)
	}
	remedy := "run the same command again to go on"
	if !place.kept() {
		remedy = fmt.Sprintf("to go on, use --from-line %d", r.complete+1)
	}
	return fmt.Errorf("%w\n%s; %s", err, imported, remedy)
}
