package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// runDisk imports the same documents into a node that compresses and into one
// that does not.
func runDisk(ctx context.Context, b *bench) error {
	docs, err := b.documents()
	if err != nil {
		return err
	}
	var perPayload [2]float64
	for i, on := range []bool{true, false} {
		n, err := b.newNode(fmt.Sprintf("compress-%v", on), nil, fmt.Sprintf("compression_enabled: %v", on))
		if err != nil {
			return err
		}
		if perPayload[i], err = n.importedSize(ctx, b, docs); err != nil {
			return err
		}
	}
	command := "go run ./bench -run disk"
	if b.docs != "" {
		command += " -docs FILE"
	}
	b.report(row{"bytes on disk per payload byte with compression", fmt.Sprintf("%.2f, %.2f of those without", perPayload[0], perPayload[0]/perPayload[1]),
		fmt.Sprintf("%.2f without; %d documents of %d bytes", perPayload[1], docs.count, docs.payload/int64(docs.count)), command})
	return nil
}

// importedSize is what the documents take on a stopped node's disk, for each byte
// of their values.
func (n *node) importedSize(ctx context.Context, b *bench, docs documents) (float64, error) {
	if _, err := n.start(ctx, b.binary); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, b.binary, "import", "--url", "http://"+n.addr, docs.path)
	cmd.Env = append(os.Environ(), "KVS_TOKEN="+b.token)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("import: %w\n%s", err, out)
	}
	err := n.until(ctx, time.Minute, func() (bool, error) {
		_, count, err := n.root()
		return count >= docs.keys, err
	})
	if err != nil {
		return 0, err
	}
	if err := n.stop(); err != nil {
		return 0, err
	}
	size, err := n.diskUse()
	return float64(size) / float64(docs.payload), err
}
