package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const generatedDocs = 60_000

// documents is a file to import.
type documents struct {
	path    string
	count   int   // lines
	keys    int   // distinct
	payload int64 // bytes of all values
}

func (b *bench) documents() (d documents, err error) {
	d.path = b.docs
	if d.path == "" {
		d.path = filepath.Join(b.dir, "documents.jsonl")
		if err := generate(d.path); err != nil {
			return d, err
		}
	}
	f, err := os.Open(d.path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	var r io.Reader = f
	switch {
	case strings.HasSuffix(d.path, ".zst"):
		z, err := zstd.NewReader(f)
		if err != nil {
			return d, err
		}
		defer z.Close()
		r = z
	case strings.HasSuffix(d.path, ".gz"):
		if r, err = gzip.NewReader(f); err != nil {
			return d, err
		}
	}
	keys := map[string]bool{}
	lines := json.NewDecoder(r)
	for {
		var line struct {
			Key   string          `json:"key"`
			Value json.RawMessage `json:"value"`
		}
		if err := lines.Decode(&line); err == io.EOF {
			d.keys = len(keys)
			return d, nil
		} else if err != nil {
			return d, err
		}
		keys[line.Key] = true
		d.count++
		d.payload += int64(len(line.Value))
	}
}

// generate writes documents of some 600 bytes that repeat themselves as real
// ones do.
func generate(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range generatedDocs {
		tags := strings.Repeat(fmt.Sprintf(`"tag::%d",`, i%97), 30)
		if _, err := fmt.Fprintf(f, `{"key":"docs/%d/%06d","value":{"name":"item-%d","size":%d,"tags":[%s"end"],"text":"%s"}}`+"\n",
			i%40, i, i, i*7919, tags, strings.Repeat(fmt.Sprintf("word%d ", i%1013), 20)); err != nil {
			return err
		}
	}
	return f.Close()
}

func runImport(ctx context.Context, b *bench) error {
	docs, err := b.documents()
	if err != nil {
		return err
	}
	var nodes []*node
	var seeds []string
	for i := range 3 {
		n, err := b.newNode(fmt.Sprintf("import%d", i+1), seeds)
		if err != nil {
			return err
		}
		if _, err := n.start(ctx, b.binary); err != nil {
			return err
		}
		defer n.stop()
		nodes, seeds = append(nodes, n), append(seeds, n.addr)
	}
	for _, n := range nodes {
		if err := n.formed(ctx, 3); err != nil {
			return err
		}
	}
	begin := time.Now()
	cmd := exec.CommandContext(ctx, b.binary, "import", "--url", "http://"+nodes[0].addr, docs.path)
	cmd.Env = append(os.Environ(), "KVS_TOKEN="+b.token)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import: %w\n%s", err, out)
	}
	imported := time.Since(begin)
	if err := equalRoots(ctx, nodes, docs.keys, 2*time.Minute); err != nil {
		return err
	}
	everywhere := time.Since(begin)

	var wire float64
	for _, n := range nodes {
		bytes, err := n.metric("kvs_node_sent_bytes_total")
		if err != nil {
			return err
		}
		wire += bytes
	}
	command := "go run ./bench -run import"
	if b.docs != "" {
		command += " -docs FILE"
	}
	per := float64(docs.payload)
	b.report(row{"import into one of three until all roots are equal", fmt.Sprintf("%.0f documents/s", float64(docs.count)/everywhere.Seconds()),
		fmt.Sprintf("%d documents of %d bytes; the import itself %.0f/s", docs.count, docs.payload/int64(docs.count), float64(docs.count)/imported.Seconds()), command})
	b.report(row{"bytes between nodes per payload byte and copy", fmt.Sprintf("%.2f", wire/per/2), "two further copies", command})
	for _, n := range nodes {
		anonymous, resident, err := n.memory()
		if err != nil {
			return err
		}
		if err := n.stop(); err != nil {
			return err
		}
		disk, err := n.diskUse()
		if err != nil {
			return err
		}
		b.report(row{"memory and disk of " + n.name, fmt.Sprintf("%d MB, %.2f bytes per payload byte", anonymous>>20, float64(disk)/per),
			fmt.Sprintf("aim under 300 MB; %d MB with mapped files", resident>>20), command})
	}
	return nil
}
