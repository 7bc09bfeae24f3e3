package ratelimit

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func addr(t testing.TB, s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAddressKey(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "::ffff:192.0.2.2", false},
		{"2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"2001:db8::1", "2001:db9::1", false},
		{"::c000:201", "192.0.2.1", false},
		{"0:0:c000:201::", "192.0.2.1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		if same := AddressKey(addr(t, tt.a)) == AddressKey(addr(t, tt.b)); same != tt.same {
			t.Errorf("%s and %s: %v", tt.a, tt.b, same)
		}
	}
	if AddressKey(netip.Addr{}) != (Key{}) || AddressKey(addr(t, "0.0.0.0")) == (Key{}) {
		t.Error("no address is taken for one")
	}
	if SubjectKey("") == (Key{}) {
		t.Error("no subject is taken for no address")
	}
}

var testTrusted = []string{"10.0.0.0/8", "::ffff:172.16.0.0/108", "2001:db8:ff::/48", "192.0.2.9"}

func trusted(t testing.TB) []netip.Prefix {
	networks, err := ParseNetworks(testTrusted)
	if err != nil {
		t.Fatal(err)
	}
	return networks
}

func TestClientAddress(t *testing.T) {
	for _, tt := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"no header", "203.0.113.1:99", nil, "203.0.113.1"},
		{"a stranger's header", "203.0.113.1:99", []string{"198.51.100.1"}, "203.0.113.1"},
		{"a proxy's", "10.0.0.1:99", []string{"198.51.100.1"}, "198.51.100.1"},
		{"a proxy's, with what the client sent", "10.0.0.1:99", []string{"6.6.6.6, 7.7.7.7, 198.51.100.1"}, "198.51.100.1"},
		{"several headers", "10.0.0.1:99", []string{"6.6.6.6", "198.51.100.1,10.0.0.3", "10.0.0.2"}, "198.51.100.1"},
		{"proxies behind each other", "10.0.0.1:99", []string{"6.6.6.6,198.51.100.1 , 10.0.0.3,\t10.0.0.2"}, "198.51.100.1"},
		{"a proxy itself", "10.0.0.1:99", nil, "10.0.0.1"},
		{"a client among the proxies", "10.0.0.1:99", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"one address is trusted", "192.0.2.9:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"and not its neighbour", "192.0.2.8:1", []string{"198.51.100.1"}, "192.0.2.8"},
		{"a network in IPv6 form", "172.31.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"an address in IPv6 form", "[::ffff:10.0.0.1]:99", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"IPv6", "[2001:db8:ff::1]:99", []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv6 with brackets and port", "[2001:db8:ff::1]:99", []string{"[2001:db8::7]:80"}, "2001:db8::7"},
		{"IPv6 with brackets", "[2001:db8:ff::1]:99", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"IPv4 with a port", "10.0.0.1:99", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"a zone", "[fe80::1%eth0]:99", nil, "fe80::1"},
		{"no port", "10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},

		{"garbage before the client", "10.0.0.1:99", []string{"unknown, 198.51.100.1"}, "198.51.100.1"},
		{"garbage instead of the client", "10.0.0.1:99", []string{"6.6.6.6, unknown"}, "10.0.0.1"},
		{"garbage between proxies", "10.0.0.1:99", []string{"6.6.6.6, <x>, 10.0.0.2"}, "10.0.0.2"},
		{"an empty element", "10.0.0.1:99", []string{"6.6.6.6, , 10.0.0.2"}, "10.0.0.2"},
		{"an empty header", "10.0.0.1:99", []string{"6.6.6.6", ""}, "10.0.0.1"},
		{"an octal address", "10.0.0.1:99", []string{"0306.1.2.3"}, "10.0.0.1"},
		{"IPv4 in brackets", "10.0.0.1:99", []string{"[198.51.100.1]"}, "10.0.0.1"},
		{"half a bracket", "10.0.0.1:99", []string{"[2001:db8::7"}, "10.0.0.1"},
		{"nothing in brackets", "10.0.0.1:99", []string{"[]"}, "10.0.0.1"},
		{"a network", "10.0.0.1:99", []string{"198.51.100.0/24"}, "10.0.0.1"},
		{"a peer without address", "@", []string{"198.51.100.1"}, "invalid IP"},
		{"no peer", "", []string{"198.51.100.1"}, "invalid IP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ClientAddress(tt.peer, tt.forwarded, trusted(t)).String(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			// Nobody is trusted unless it was said.
			if got := ClientAddress(tt.peer, tt.forwarded, nil); got != ClientAddress(tt.peer, nil, nil) {
				t.Errorf("%s, though no proxy is trusted", got)
			}
		})
	}
}

func TestParseNetworks(t *testing.T) {
	got, err := ParseNetworks([]string{"10.1.2.3/8", "10.1.2.3", "::ffff:10.0.0.0/104", "::ffff:10.1.2.3", "2001:db8::1/32", "::1", "::/0"})
	want := "[10.0.0.0/8 10.1.2.3/32 10.0.0.0/8 10.1.2.3/32 2001:db8::/32 ::1/128 ::/0]"
	var text []string
	for _, p := range got {
		text = append(text, p.String())
	}
	if s := "[" + strings.Join(text, " ") + "]"; err != nil || s != want {
		t.Errorf("%s, %v", s, err)
	}
	for _, bad := range []string{"", "10.0.0", "10.0.0.0/33", "proxy.example", "10.0.0.1:80", "/8"} {
		if got, err := ParseNetworks([]string{"10.0.0.1", bad}); err == nil || !strings.Contains(err.Error(), bad) || got != nil {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

// The walk is compared with the definition, written plainly; and no client can
// make itself somebody else by what it sends.
func FuzzClientAddress(f *testing.F) {
	f.Add("10.0.0.1:1", "6.6.6.6, 198.51.100.1", "10.0.0.2")
	f.Add("[2001:db8:ff::1]:1", "[2001:db8::7]:80", ",")
	f.Add("10.0.0.1:1", "unknown", "")
	f.Add("@", "[", "]")
	networks := trusted(f)
	f.Fuzz(func(t *testing.T, peer, first, second string) {
		lines := []string{first, second}
		got := ClientAddress(peer, lines, networks)

		var want netip.Addr
		chain := append(strings.Split(first, ","), strings.Split(second, ",")...)
		chain = append(chain, peer)
		slices.Reverse(chain)
		for i, element := range chain {
			if i > 0 {
				element = strings.Trim(element, " \t")
			}
			hop, ok := parseHop(element)
			if !ok {
				break
			}
			want = hop
			if !isTrusted(hop, networks) {
				break
			}
		}
		if got != want {
			t.Errorf("%v, want %v", got, want)
		}
		if got.Is4In6() || got.Zone() != "" {
			t.Errorf("%v is not in its plain form", got)
		}
		AddressKey(got)
		if got.IsValid() && !isTrusted(got, networks) {
			for _, forged := range []string{"6.6.6.6", "6.6.6.6, 10.0.0.1", "x,"} {
				if again := ClientAddress(peer, append([]string{forged}, lines...), networks); again != got {
					t.Errorf("%q before it made %v of %v", forged, again, got)
				}
			}
		}
	})
}
