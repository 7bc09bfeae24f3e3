package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far an import is: a bar on a terminal, elsewhere a line now
// and then.
type progress struct {
	out  io.Writer
	size int64 // of the file; 0 = not known
	bar  *progressbar.ProgressBar
	last time.Time // of the last line
}

// lineEvery is the pace where nobody watches: a log should not fill up.
const lineEvery = 5 * time.Second

func newProgress(out io.Writer, size int64) *progress {
	p := &progress{out: out, size: size, last: time.Now()}
	if !isTerminal(out) {
		return p
	}
	known := size
	if known == 0 {
		known = -1
	}
	p.bar = progressbar.NewOptions64(known,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetDescription("importing"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionFullWidth(),
	)
	return p
}

// update is told the bytes of the file that are read, and the documents that are
// imported. The bar's own errors are those of a terminal that is gone.
func (p *progress) update(read int64, documents int) {
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("imported %d", documents))
		if p.size > 0 {
			read = min(read, p.size) // a file that grows
		}
		p.bar.Set64(read)
		return
	}
	if time.Since(p.last) < lineEvery {
		return
	}
	p.last = time.Now()
	text := "imported " + count(documents, "document")
	if p.size > 0 {
		text += fmt.Sprintf(", %d %% of the file read", 100*min(read, p.size)/p.size)
	}
	fmt.Fprintln(p.out, text)
}

// note prints a line between.
func (p *progress) note(text string) {
	if p.bar != nil {
		p.bar.Clear()
	}
	fmt.Fprintln(p.out, text)
}

func (p *progress) done() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
