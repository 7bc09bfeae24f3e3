package oneport

import (
	"net"
	"testing"
)

func TestListenBindsBothProtocolsOnOnePort(t *testing.T) {
	ln, packets, err := Real().Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	defer packets.Close()
	if ln.Addr().String() != packets.LocalAddr().String() {
		t.Fatalf("TCP on %s, UDP on %s", ln.Addr(), packets.LocalAddr())
	}

	conn, err := Real().DialContext(t.Context(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListenRefusesATakenPort(t *testing.T) {
	held, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ln, packets, err := Real().Listen(held.LocalAddr().String())
	if err == nil {
		ln.Close()
		packets.Close()
		t.Fatal("listened on a port that is taken for UDP")
	}
	// The half that was free must be free again.
	ln, err = net.Listen("tcp", held.LocalAddr().String())
	if err != nil {
		t.Fatalf("the TCP port was not given back: %v", err)
	}
	ln.Close()
}
