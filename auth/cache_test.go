package auth

import (
	"testing"
	"time"
)

func TestCache(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	c := newCache[int, string](8)
	c.put(1, "one", now.Add(time.Second))
	if v, ok := c.get(1, now.Add(time.Second-1)); !ok || v != "one" {
		t.Errorf("get gives %q, %v", v, ok)
	}
	if v, ok := c.get(1, now.Add(time.Second)); ok || v != "" {
		t.Errorf("an expired value is there: %q", v)
	}
	if _, ok := c.get(2, now); ok {
		t.Error("a value that was never put is there")
	}
	for i := 10; i < 100; i++ {
		c.put(i, "new", now.Add(time.Hour))
		if i%3 == 0 {
			if _, ok := c.get(1, now); !ok {
				t.Fatalf("what is in use is gone after %d", i)
			}
		}
		if c.size() > 8 {
			t.Fatalf("it holds %d values", c.size())
		}
	}
	if _, ok := c.get(99, now); !ok {
		t.Error("the newest value is gone")
	}
	if _, ok := c.get(50, now); ok {
		t.Error("a value that is not in use stays")
	}
	c.put(1, "again", now.Add(time.Hour)) // replaces, young or old
	if v, ok := c.get(1, now.Add(time.Minute)); !ok || v != "again" {
		t.Errorf("a value put again is %q, %v", v, ok)
	}
}
