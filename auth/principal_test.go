package auth

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kvs/types"
)

const (
	alice  = "01890000-0000-4000-8000-0000000000a1"
	bob    = "01890000-0000-4000-8000-0000000000b0"
	staff  = "01890000-0000-4000-8000-000000000051"
	guests = "01890000-0000-4000-8000-000000000060"
)

func TestMay(t *testing.T) {
	for _, c := range []struct {
		name    string
		subject string
		groups  []string
		scopes  []string
		mode    string // of an item of alice and staff, under pub/x; "": there is no item
		want    string // rights, as in a mode
	}{
		{"the owner", alice, nil, []string{"read", "write"}, "cdwr:----:----", "cdwr"},
		{"the owner has the owner's rights only", alice, []string{staff}, []string{"read", "write"}, "----:cdwr:cdwr", "----"},
		{"the group", bob, []string{guests, staff}, []string{"read", "write"}, "----:c-w-:----", "c-w-"},
		{"the group has the group's rights only", bob, []string{staff}, []string{"read", "write"}, "cdwr:----:cdwr", "----"},
		{"others", bob, []string{guests}, []string{"read", "write"}, "cdwr:cdwr:-d-r", "-d-r"},
		{"anonymous", Anonymous, nil, []string{"read"}, "cdwr:--wr:---r", "---r"},
		{"a scope does not pass the mode", bob, nil, []string{"read", "write"}, "cdwr:cdwr:----", "----"},
		{"a mode does not pass the scope", alice, nil, []string{"read"}, "cdwr:cdwr:cdwr", "---r"},
		{"to write is not to read", alice, nil, []string{"write"}, "cdwr:cdwr:cdwr", "cdw-"},
		{"to run jobs is neither", alice, nil, []string{"jobs"}, "cdwr:cdwr:cdwr", "----"},
		{"another prefix", alice, nil, []string{"read:pub/y", "write:pu"}, "cdwr:cdwr:cdwr", "----"},
		{"admin passes the mode", bob, nil, []string{"admin"}, "----:----:----", "cdwr"},
		{"admin passes the mode within its prefix", bob, nil, []string{"admin:pub/"}, "----:----:----", "cdwr"},
		{"but not outside", bob, nil, []string{"admin:other/", "read"}, "----:----:-d-r", "---r"},
		{"root without the scope is no admin", Root, nil, []string{"read", "write"}, "cdwr:cdwr:----", "----"},
		{"without an item", bob, nil, []string{"write:pub/"}, "", "cdw-"},
	} {
		p := &Principal{Subject: c.subject, Groups: c.groups, Scopes: scopes(t, c.scopes...)}
		var m *types.Meta
		if c.mode != "" {
			mode, err := ParseMode(c.mode)
			if err != nil {
				t.Fatal(err)
			}
			m = &types.Meta{Owner: alice, Group: staff, Mode: mode}
		}
		got := ""
		for i, right := range []Right{RightCreate, RightDelete, RightWrite, RightRead} {
			if p.May(right, "pub/x", m) {
				got += modeLetters[i : i+1]
			} else {
				got += "-"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestMayAsksForAllRights(t *testing.T) {
	p := &Principal{Subject: alice, Scopes: scopes(t, "read", "write")}
	m := &types.Meta{Owner: alice, Mode: 0b0011_0000_0000}
	for right, want := range map[Right]bool{
		RightRead | RightWrite: true, RightRead | RightDelete: false, allRights: false, 0: false, allRights + 1: false, 1<<15 | RightRead: false,
	} {
		if p.May(right, "k", m) != want {
			t.Errorf("right %b: want %v", right, want)
		}
	}
	if p.May(0, "k", nil) || (&Principal{Scopes: scopes(t, "admin")}).May(1<<8, "k", nil) {
		t.Error("no right, or an unknown one, is given")
	}
}

func TestGroupRootIsRootsAlone(t *testing.T) {
	m := &types.Meta{Owner: alice, Group: Root, Mode: 0b0000_0001_0000}
	if !(&Principal{Subject: Root, Scopes: scopes(t, "read")}).May(RightRead, "k", m) {
		t.Error("root is not in the group root")
	}
	if (&Principal{Subject: bob, Groups: []string{Root}, Scopes: scopes(t, "read")}).May(RightRead, "k", m) {
		t.Error("a user is in the group root")
	}
}

func TestAdmin(t *testing.T) {
	all, some, none := &Principal{Scopes: scopes(t, "read", "admin")}, &Principal{Scopes: scopes(t, "admin:pub/")}, &Principal{Scopes: scopes(t, "write")}
	if !all.Admin() || some.Admin() || none.Admin() {
		t.Error("Admin is not about an admin grant for everything")
	}
	if !all.AdminOf("x") || !some.AdminOf("pub/x") || some.AdminOf("x") || none.AdminOf("x") {
		t.Error("AdminOf is not about an admin grant that covers the key")
	}
}

// dumbMay reads the rights off the mode as people do.
func dumbMay(p *Principal, right Right, key string, m *types.Meta) bool {
	letters := map[Right]string{RightCreate: "c", RightDelete: "d", RightWrite: "w", RightRead: "r"}
	scope := "write"
	if right == RightRead {
		scope = "read"
	}
	list := p.Scopes.Strings()
	if !dumbCovers(list, scope, key) {
		return false
	}
	if m == nil || dumbCovers(list, "admin", key) {
		return true
	}
	class := 2
	if slices.Contains(p.Groups, m.Group) || p.Subject == "root" && m.Group == "root" {
		class = 1
	}
	if p.Subject == m.Owner {
		class = 0
	}
	return strings.Contains(strings.Split(FormatMode(m.Mode), ":")[class], letters[right])
}

func TestMayIsWhatADumbOneSays(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	names := []string{alice, bob, Root, Anonymous}
	given := 0
	for range 20_000 {
		p := &Principal{Subject: names[r.IntN(len(names))], Scopes: randomScopes(r)}
		for _, g := range []string{guests, staff} {
			if r.IntN(2) == 0 {
				p.Groups = append(p.Groups, g)
			}
		}
		key, right := randomName(r), Right(1)<<r.IntN(4)
		var m *types.Meta
		if r.IntN(10) > 0 {
			m = &types.Meta{Owner: names[r.IntN(len(names))], Group: []string{staff, guests, Root, ""}[r.IntN(4)], Mode: uint16(r.IntN(1 << 12))}
		}
		got := p.May(right, types.Key(key), m)
		if got != dumbMay(p, right, key, m) {
			t.Fatalf("%+v may %b on %q of %+v: %v", p, right, key, m, got)
		}
		if got {
			given++
		}
	}
	if given < 2000 || given > 18_000 {
		t.Errorf("%d of 20000 were given, which tests little", given)
	}
}
