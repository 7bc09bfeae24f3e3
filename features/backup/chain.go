package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"kvs/types"
)

// Resolve finds the chain that is to be restored: the named files, what they
// follow, and, where following is set and a single full backup is named, the
// incremental ones that follow it. Those are looked for beside the named ones.
func Resolve(paths []string, following bool) ([]Info, error) {
	var named, all []Info
	var wrong []error
	seen := make(map[string]bool)
	for _, path := range paths {
		info, err := ReadInfo(path)
		if err != nil {
			return nil, err
		}
		named = append(named, info)
	}
	all = append(all, named...)
	for _, info := range named {
		if dir := filepath.Clean(info.Dir); !seen[dir] {
			seen[dir] = true
			beside, bad := List(dir)
			all, wrong = append(all, beside...), append(wrong, bad...)
		}
	}
	last := slices.MaxFunc(named, older)
	if following && len(named) == 1 && last.Type == Full {
		last = newest(last, all)
	}
	chain, err := chainOf(last, all)
	if err != nil {
		return nil, errors.Join(append([]error{err}, wrong...)...)
	}
	for _, info := range named {
		if !slices.ContainsFunc(chain, func(c Info) bool { return c.ID == info.ID }) {
			return nil, fmt.Errorf("%s does not belong to the chain of %s, which is the newest that was named: restore them one after another, the later ones by --merge, or name one of them", info.Name, last.Name)
		}
	}
	return chain, nil
}

// newest gives the newest backup whose chain begins with full.
func newest(full Info, all []Info) Info {
	best := full
	for _, info := range all {
		if chain, err := chainOf(info, all); err == nil && chain[0].ID == full.ID && older(best, info) < 0 {
			best = info
		}
	}
	return best
}

// source is a backup whose bytes are at hand.
type source struct {
	name         string
	from         io.ReaderAt
	offset, size int64
	header       Header
	trailer      Trailer
}

func (s *source) section() io.Reader { return io.NewSectionReader(s.from, s.offset, s.size) }

// openChain opens and verifies the files of a chain, each as a whole.
func openChain(ctx context.Context, chain []Info, progress func(name string)) (sources []source, close func(), err error) {
	var files []*os.File
	close = func() {
		for _, f := range files {
			f.Close() // read only
		}
	}
	for _, info := range chain {
		progress(info.Name)
		f, err := os.Open(info.Path())
		if err != nil {
			close()
			return nil, nil, err
		}
		files = append(files, f)
		is, err := verifyFile(ctx, info.Path(), f)
		if err == nil && is.ID != info.ID {
			err = fmt.Errorf("%s was replaced while it was read", info.Path())
		}
		if err != nil {
			close()
			return nil, nil, err
		}
		sources = append(sources, source{info.Name, f, 0, is.Size, is.Header, is.Trailer})
	}
	return sources, close, nil
}

// openSpool verifies the backups that stand one after another in from, each as a
// whole. They are a chain, or one alone.
func openSpool(ctx context.Context, from io.ReaderAt, size int64) (sources []source, err error) {
	for offset := int64(0); offset < size || offset == 0; {
		name := "the backup"
		if len(sources) > 0 {
			name = fmt.Sprintf("backup %d of those sent", len(sources)+1)
		}
		s := source{name: name, from: from, offset: offset}
		s.header, s.trailer, s.size, err = verifySection(ctx, name, io.NewSectionReader(from, offset, size-offset))
		if err != nil {
			return nil, err
		}
		if n := len(sources); n > 0 && (s.header.Type != Incremental || s.header.Follows != sources[n-1].header.ID) {
			return nil, fmt.Errorf("%w: %s does not follow the one before it", ErrNoChain, name)
		}
		sources, offset = append(sources, s), offset+s.size
	}
	return sources, nil
}

// ErrNoChain says that backups do not belong together, in the order in which they
// came.
var ErrNoChain = errors.New("the backups are no chain")

// history is what a chain knows of one key.
type history struct {
	ref      types.Ref
	versions []types.Record // ascending, each once
	gone     []vanished     // ascending
	// What the newest of the backups that know the key says of it.
	current *types.Record // nil: it is gone
}

// walkChain calls fn with every key of a verified chain, in order.
func walkChain(ctx context.Context, sources []source, fn func(*history) error) error {
	var heads []*head
	defer func() {
		for _, h := range heads {
			h.r.close()
		}
	}()
	for i := range sources {
		r, err := newReader(sources[i].name, sources[i].section())
		if err != nil {
			return err
		}
		h := &head{r: r}
		heads = append(heads, h)
		if err := h.advance(); err != nil {
			return err
		}
	}
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		first := -1
		for i, h := range heads {
			if !h.ended && (first < 0 || compareRefs(h.e.rec.Ref, heads[first].e.rec.Ref) < 0) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		k := history{ref: heads[first].e.rec.Ref}
		for _, h := range heads {
			if err := h.take(&k); err != nil {
				return err
			}
		}
		k.settle()
		if err := fn(&k); err != nil {
			return err
		}
	}
}

// head is the next entry of a backup.
type head struct {
	r     *reader
	e     entry
	ended bool
}

func (h *head) advance() (err error) {
	if h.e, err = h.r.entry(); err == io.EOF {
		h.ended, err = true, nil
	}
	return err
}

// take moves what the backup has of k's key into k. Backups are taken oldest
// first.
func (h *head) take(k *history) error {
	for !h.ended && h.e.rec.Ref == k.ref {
		switch h.e.kind {
		case entryGone:
			k.gone, k.current = append(k.gone, h.e.gone), nil
		case entryCurrent:
			rec := h.e.rec
			k.versions, k.current = append(k.versions, rec), &rec
		default:
			k.versions = append(k.versions, h.e.rec)
		}
		if err := h.advance(); err != nil {
			return err
		}
	}
	return nil
}

// settle puts the versions in order. Of copies of one version that which is kept
// longest comes last, and stays.
func (k *history) settle() {
	slices.SortStableFunc(k.versions, func(a, b types.Record) int { return a.Version.Compare(b.Version) })
	out := k.versions[:0]
	for _, rec := range k.versions {
		if n := len(out); n > 0 && out[n-1].UUID == rec.UUID {
			out[n-1] = types.Merge(out[n-1], rec).Winner
			continue
		}
		out = append(out, rec)
	}
	k.versions = out
}
