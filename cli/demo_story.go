package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"kvs/client"
	"kvs/types"
	"kvs/utils/backoff"
)

const (
	demoKey = "lamp/color"
	// demoPatience bounds each wait. All of them take a second or two; this is
	// for machines that are busy with something else.
	demoPatience = time.Minute
)

// demoSamples are written through the first node.
var demoSamples = []struct{ key, value string }{
	{"users/ada", `{"name":"Ada Lovelace","born":1815}`},
	{"users/alan", `{"name":"Alan Turing","born":1912}`},
	{"users/grace", `{"name":"Grace Hopper","born":1906}`},
	{demoKey, `"white"`},
}

// The two writes that conflict. The second one is the later one, and so wins.
const (
	demoLoser  = `"red"`
	demoWinner = `"blue"`
)

// story does one thing after another and tells each once it is seen to be so.
type story struct {
	*demoNodes
	out    io.Writer
	number int
}

func tellDemo(ctx context.Context, out io.Writer, d *demoNodes) error {
	s := &story{demoNodes: d, out: out}
	for _, step := range []func(context.Context) error{s.meet, s.share, s.part, s.disagree, s.heal, s.keep, s.agree} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	for _, url := range d.urls {
		fmt.Fprintln(out, url)
	}
	return nil
}

// tell begins a numbered paragraph; add goes on with it.
func (s *story) tell(format string, args ...any) {
	s.number++
	fmt.Fprintf(s.out, "%d. %s\n", s.number, fmt.Sprintf(format, args...))
}

func (s *story) add(format string, args ...any) {
	fmt.Fprintf(s.out, "   %s\n", fmt.Sprintf(format, args...))
}

func (s *story) meet(ctx context.Context) error {
	if err := s.awaitMembers(ctx); err != nil {
		return err
	}
	s.tell("Three nodes are up, and each sees the other two:")
	for i, name := range s.names {
		s.add("%s  %s", name, s.urls[i])
	}
	return nil
}

func (s *story) share(ctx context.Context) error {
	for _, sample := range demoSamples {
		if _, err := s.put(ctx, 0, sample.key, sample.value); err != nil {
			return err
		}
	}
	s.tell("Wrote %d documents through %s.", len(demoSamples), s.names[0])
	start := time.Now()
	for node := 1; node < demoSize; node++ {
		for _, sample := range demoSamples {
			if err := s.awaitValue(ctx, node, sample.key, sample.value); err != nil {
				return err
			}
		}
	}
	s.add("Read all of them on %s and %s, %s later.", s.names[1], s.names[2], sinceText(start))
	return nil
}

func (s *story) part(context.Context) error {
	s.fabric.Cut(s.names[0], s.names[2])
	s.fabric.Cut(s.names[1], s.names[2])
	s.tell("Broke the link between %s and the other two.", s.names[2])
	return nil
}

func (s *story) disagree(ctx context.Context) error {
	first, err := s.put(ctx, 0, demoKey, demoLoser)
	if err != nil {
		return err
	}
	if err := s.awaitValue(ctx, 1, demoKey, demoLoser); err != nil {
		return err
	}
	// Within one millisecond the nodes' counters would decide which is later.
	backoff.Sleep(ctx, time.Until(time.UnixMilli(first.Timestamp+2)))
	if _, err := s.put(ctx, 2, demoKey, demoWinner); err != nil {
		return err
	}
	if err := s.awaitValue(ctx, 1, demoKey, demoLoser); err != nil {
		return err
	}
	s.tell("Wrote %s on both sides; neither knows of the other's write:", demoKey)
	s.add("%s and %s say %s, and %s says %s.", s.names[0], s.names[1], demoLoser, s.names[2], demoWinner)
	return nil
}

func (s *story) heal(ctx context.Context) error {
	start := time.Now()
	s.fabric.HealAll()
	for node := range demoSize {
		if err := s.awaitValue(ctx, node, demoKey, demoWinner); err != nil {
			return err
		}
	}
	s.tell("Healed the link. After %s all three say %s: the later write wins on every node.", sinceText(start), demoWinner)
	return nil
}

func (s *story) keep(ctx context.Context) error {
	for node := range demoSize {
		if err := s.awaitConflict(ctx, node, demoLoser); err != nil {
			return err
		}
	}
	s.tell("The write that lost is not gone: every node lists the conflict, and keeps %s.", demoLoser)
	return nil
}

func (s *story) agree(ctx context.Context) error {
	root, count, err := s.awaitRoots(ctx)
	if err != nil {
		return err
	}
	s.tell("All three hold the same %d records: equal Merkle roots, %s", count, root)
	return nil
}

func (d *demoNodes) put(ctx context.Context, node int, key, value string) (client.Written, error) {
	w, err := d.clients[node].Put(ctx, key, json.RawMessage(value), client.PutOptions{})
	if err != nil {
		err = fmt.Errorf("write %s through %s: %w", key, d.names[node], err)
	}
	return w, err
}

func (d *demoNodes) awaitMembers(ctx context.Context) error {
	return await(ctx, func() (bool, string, error) {
		for i, c := range d.clients {
			members, err := c.Members(ctx)
			if err != nil {
				return false, "", err
			}
			alive := 0
			for _, m := range members {
				if m.State == "alive" && m.Mode == string(types.ModeNormal) {
					alive++
				}
			}
			if alive < demoSize {
				return false, fmt.Sprintf("%s sees %d of %d nodes", d.names[i], alive, demoSize), nil
			}
		}
		return true, "", nil
	})
}

func (d *demoNodes) awaitValue(ctx context.Context, node int, key, value string) error {
	return await(ctx, func() (bool, string, error) {
		item, err := d.clients[node].Get(ctx, key)
		if errors.Is(err, types.ErrNotFound) {
			return false, fmt.Sprintf("%s does not have %s", d.names[node], key), nil
		}
		return string(item.Data) == value, fmt.Sprintf("%s says %s for %s, not %s", d.names[node], item.Data, key, value), err
	})
}

func (d *demoNodes) awaitConflict(ctx context.Context, node int, loser string) error {
	return await(ctx, func() (bool, string, error) {
		for c, err := range d.clients[node].Conflicts(ctx, demoKey) {
			if err != nil {
				return false, "", err
			}
			if string(c.Data) == loser {
				return true, "", nil
			}
		}
		return false, fmt.Sprintf("%s does not list the conflict", d.names[node]), nil
	})
}

func (d *demoNodes) awaitRoots(ctx context.Context) (root string, count uint64, err error) {
	err = await(ctx, func() (bool, string, error) {
		var roots []string
		for _, c := range d.clients {
			r, err := c.MerkleRoot(ctx)
			if err != nil {
				return false, "", err
			}
			roots, count = append(roots, r.Root), r.Count
		}
		root = roots[0]
		equal := roots[1] == root && roots[2] == root
		return equal, "the Merkle roots are " + strings.Join(roots, ", "), nil
	})
	return root, count, err
}

// await asks again and again until done, or until patience ends: then the error
// says what was seen last.
func await(ctx context.Context, ask func() (done bool, seen string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	pause := backoff.Backoff{Min: 2 * time.Millisecond, Max: 100 * time.Millisecond}
	for {
		done, seen, err := ask()
		if done && err == nil {
			return nil
		}
		if !backoff.Sleep(ctx, pause.Next()) {
			switch {
			case ctx.Err() == context.Canceled:
				return ctx.Err()
			case err != nil:
				return fmt.Errorf("waited %s in vain: %w", demoPatience, err)
			}
			return fmt.Errorf("waited %s in vain: %s", demoPatience, seen)
		}
	}
}

// sinceText rounds to what a person cares about.
func sinceText(start time.Time) string {
	took := time.Since(start)
	if took < time.Second {
		return took.Round(time.Millisecond).String()
	}
	return took.Round(100 * time.Millisecond).String()
}
