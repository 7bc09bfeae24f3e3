package faultnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"kvs/utils/faultnet"
	"kvs/utils/oneport"
)

// bases are the networks that a fabric must work over.
var bases = map[string]func() oneport.Network{
	"memory": faultnet.Memory,
	"real":   oneport.Real,
}

func TestStreamsBehaveAsNetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		n := faultnet.Memory()
		ln, packets, err := n.Listen("127.0.0.1:0")
		if err != nil {
			return nil, nil, nil, err
		}
		if c1, err = n.DialContext(context.Background(), ln.Addr().String()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = ln.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close(); ln.Close(); packets.Close() }, nil
	})
}

func listen(t *testing.T, n oneport.Network) (net.Listener, net.PacketConn) {
	t.Helper()
	ln, packets, err := n.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close(); packets.Close() })
	return ln, packets
}

func TestCutBreaksConnectionsAndHealLetsDialsThrough(t *testing.T) {
	for name, base := range bases {
		t.Run(name, func(t *testing.T) {
			fabric := faultnet.New(1, base())
			a, b := fabric.Host("a"), fabric.Host("b")
			ln, _ := listen(t, b)
			accepted := make(chan net.Conn, 2)
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						close(accepted)
						return
					}
					accepted <- c
				}
			}()
			near, err := a.DialContext(t.Context(), ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			far := <-accepted

			fabric.CutOneWay("b", "a")
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, faultnet.ErrCut) {
				t.Errorf("read at the near end: %v, want ErrCut", err)
			}
			if _, err := far.Read(make([]byte, 1)); err == nil {
				t.Error("the far end still reads")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := a.DialContext(ctx, ln.Addr().String()); err == nil {
				t.Error("dialled over a cut link")
			}

			dialled := make(chan error, 1)
			go func() {
				c, err := a.DialContext(t.Context(), ln.Addr().String())
				if err == nil {
					c.Close()
				}
				dialled <- err
			}()
			fabric.Heal("a", "b")
			if err := <-dialled; err != nil {
				t.Errorf("dial after the heal: %v", err)
			}
			ln.Close()
			far.Close()
			for c := range accepted {
				c.Close()
			}
		})
	}
}

func TestCutLosesPacketsOneWay(t *testing.T) {
	for name, base := range bases {
		t.Run(name, func(t *testing.T) {
			fabric := faultnet.New(1, base())
			_, pa := listen(t, fabric.Host("a"))
			_, pb := listen(t, fabric.Host("b"))
			fabric.CutOneWay("a", "b")
			send(t, pa, pb, "lost")
			fabric.Heal("a", "b")
			send(t, pa, pb, "first")
			if got := receive(t, pb); got != "first" {
				t.Errorf("b got %q", got)
			}
			fabric.CutOneWay("a", "b")
			send(t, pb, pa, "back")
			if got := receive(t, pa); got != "back" {
				t.Errorf("a got %q", got)
			}
		})
	}
}

func TestPacketFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fabric := faultnet.New(7, faultnet.Memory())
		_, pa := listen(t, fabric.Host("a"))
		_, pb := listen(t, fabric.Host("b"))
		fabric.SetFaultsEverywhere(faultnet.Faults{Drop: 0.5, Duplicate: 0.5, Delay: time.Second})
		fabric.SetFaults("b", "a", faultnet.Faults{})

		start := time.Now()
		const sent = 400
		for range sent {
			send(t, pa, pb, "x")
		}
		pb.SetReadDeadline(start.Add(2 * time.Second))
		got := 0
		var last time.Time
		for {
			if _, _, err := pb.ReadFrom(make([]byte, 8)); err != nil {
				break
			}
			got++
			last = time.Now()
		}
		// Half of them, of which half twice: 300 expected.
		if got < 240 || got > 360 {
			t.Errorf("%d of %d packets arrived", got, sent)
		}
		if late := last.Sub(start); late < 500*time.Millisecond || late > time.Second {
			t.Errorf("the last came after %v", late)
		}
		send(t, pb, pa, "clean")
		if got := receive(t, pa); got != "clean" {
			t.Errorf("a got %q", got)
		}
	})
}

func TestHTTPInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fabric := faultnet.New(1, faultnet.Memory())
		ln, _ := listen(t, fabric.Host("server"))
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
		})}
		go srv.Serve(ln)
		defer srv.Close()
		from := fabric.Host("client")
		transport := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return from.DialContext(ctx, addr)
		}}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
		big := strings.Repeat("0123456789", 100_000) // more than a stream holds
		for range 3 {
			resp, err := client.Post("http://"+ln.Addr().String()+"/", "text/plain", strings.NewReader(big))
			if err != nil {
				t.Fatal(err)
			}
			echo, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(echo) != big {
				t.Fatalf("%d bytes came back: %v", len(echo), err)
			}
		}
		fabric.Cut("client", "server")
		start := time.Now()
		if _, err := client.Get("http://" + ln.Addr().String() + "/"); err == nil {
			t.Fatal("answered over a cut link")
		}
		if waited := time.Since(start); waited != 10*time.Second {
			t.Errorf("gave up after %v", waited)
		}
	})
}

func TestAddressIsFreeAgain(t *testing.T) {
	n := faultnet.Memory()
	ln, packets, err := n.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if _, _, err := n.Listen(addr); err == nil {
		t.Error("one address was given out twice")
	}
	ln.Close()
	if _, err := n.DialContext(t.Context(), addr); err == nil {
		t.Error("dialled a closed listener")
	}
	packets.Close()
	if ln, packets, err = n.Listen(addr); err != nil {
		t.Fatal(err)
	}
	ln.Close()
	packets.Close()
}

func send(t *testing.T, from, to net.PacketConn, text string) {
	t.Helper()
	if _, err := from.WriteTo([]byte(text), to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, on net.PacketConn) string {
	t.Helper()
	on.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 64)
	n, _, err := on.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
