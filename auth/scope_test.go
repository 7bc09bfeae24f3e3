package auth

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func scopes(t testing.TB, list ...string) Scopes {
	t.Helper()
	s, err := ParseScopes(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseScopes(t *testing.T) {
	for _, list := range [][]string{
		{"read"}, {"read", "write", "jobs", "admin"}, {"read:pub/", "read:pub", "read"}, {"write:a b/ü:x"},
		{"jobs:mail:high"}, {"read:" + strings.Repeat("x", maxPrefix)}, {"admin:_x"},
	} {
		s, err := ParseScopes(list)
		if err != nil || !slices.Equal(s.Strings(), list) {
			t.Errorf("%q is read as %v, %v", list, s, err)
		}
	}
	for _, list := range [][]string{
		nil, {}, {""}, {"Read"}, {"read "}, {" read"}, {"reads"}, {"*"}, {"read,write"}, {"read", "read"}, {"read:a", "write", "read:a"},
		{"read", ""}, {"read:"}, {":a"}, {"read:/"}, {"read:/a"}, {"read:a//"}, {"read:a//b"}, {"read:."}, {"read:a/../b"},
		{"read:a\x00"}, {"read:a\n"}, {"read:\u0085"}, {"read:\xff"}, {"read:" + strings.Repeat("x", maxPrefix+1)}, {"read:" + strings.Repeat("x", maxPrefix) + "/"},
		{strings.Repeat("x", 1<<20)},
	} {
		s, err := ParseScopes(list)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%.80q is read as %v, %v", list, s, err)
		} else if len(err.Error()) > 2*maxPrefix {
			t.Errorf("the error has %d bytes", len(err.Error()))
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		grant string
		yes   []string
		no    []string
	}{
		{"read", []string{"a", "a/b"}, nil},
		{"read:pub/", []string{"pub/x", "pub/x/y", "pub//"}, []string{"pub", "public", "public/x", "x/pub/", "", "PUB/x"}},
		{"read:pub", []string{"pub", "pub/x"}, []string{"public", "pub.x", "pu", "x/pub", ""}},
		{"read:a/b", []string{"a/b", "a/b/c"}, []string{"a", "a/bc", "a/c", "a//b"}},
	} {
		s := scopes(t, c.grant)
		for _, name := range c.yes {
			if !s.Covers(ScopeRead, name) {
				t.Errorf("%s does not cover %q", c.grant, name)
			}
			if s.Covers(ScopeWrite, name) || s.Covers(ScopeJobs, name) || s.Covers(ScopeAdmin, name) {
				t.Errorf("%s gives more than read", c.grant)
			}
		}
		for _, name := range c.no {
			if s.Covers(ScopeRead, name) {
				t.Errorf("%s covers %q", c.grant, name)
			}
		}
	}
	admin := scopes(t, "admin:pub/")
	for scope := range Scope(len(scopeNames)) {
		if !admin.Covers(scope, "pub/x") || !admin.Any(scope) || admin.Covers(scope, "x") {
			t.Errorf("an admin grant does not cover %v within its prefix alone", scope)
		}
	}
	if s := scopes(t, "jobs:mail"); s.Any(ScopeRead) || s.Any(ScopeAdmin) || !s.Any(ScopeJobs) {
		t.Error("Any gives what was not granted, or not what was")
	}
	if Scopes(nil).Covers(ScopeRead, "a") || Scopes(nil).Any(ScopeRead) {
		t.Error("no scopes give something")
	}
}

func TestPrefixes(t *testing.T) {
	for _, c := range []struct {
		list []string
		want []string
		all  bool
	}{
		{[]string{"read"}, nil, true},
		{[]string{"read:a", "admin"}, nil, true},
		{[]string{"write"}, nil, false},
		{[]string{"read:b/", "write:c/", "read:a/"}, []string{"a/", "b/"}, false},
		{[]string{"read:a", "read:a-b", "read:a/c", "admin:ab"}, []string{"a"}, false},
		{[]string{"read:a/", "admin:a/"}, []string{"a/"}, false},
	} {
		got, all := scopes(t, c.list...).Prefixes(ScopeRead)
		if !slices.Equal(got, c.want) || all != c.all {
			t.Errorf("%q: %q, %v", c.list, got, all)
		}
	}
}

// random names and prefixes share few letters, so that they often meet.
func randomName(r *rand.Rand) string {
	segments := make([]string, 1+r.IntN(3))
	for i := range segments {
		segments[i] = []string{"a", "b", "ab", "a-"}[r.IntN(4)]
	}
	return strings.Join(segments, "/")
}

func randomScopes(r *rand.Rand) Scopes {
	var list []string
	for range 1 + r.IntN(3) {
		s := scopeNames[r.IntN(len(scopeNames))]
		if r.IntN(4) > 0 {
			s += ":" + randomName(r) + []string{"", "/"}[r.IntN(2)]
		}
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	s, err := ParseScopes(list)
	if err != nil {
		panic(err)
	}
	return s
}

// dumbCovers compares segments one by one.
func dumbCovers(list []string, scope, name string) bool {
	for _, s := range list {
		given, prefix, limited := strings.Cut(s, ":")
		if given != scope && given != "admin" {
			continue
		}
		if !limited {
			return true
		}
		want, below := strings.CutSuffix(prefix, "/")
		wants, has := strings.Split(want, "/"), strings.Split(name, "/")
		fits := len(has) >= len(wants)
		for i := range wants {
			fits = fits && has[i] == wants[i]
		}
		if fits && (!below || len(has) > len(wants)) {
			return true
		}
	}
	return false
}

func TestCoversIsWhatADumbOneSays(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	covered := 0
	for range 20_000 {
		s, scope, name := randomScopes(r), Scope(r.IntN(len(scopeNames))), randomName(r)
		got := s.Covers(scope, name)
		if got != dumbCovers(s.Strings(), scope.String(), name) {
			t.Fatalf("%v covers %v of %q: %v", s.Strings(), scope, name, got)
		}
		prefixes, all := s.Prefixes(scope)
		narrowed := all || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
		if got && (!narrowed || !s.Any(scope)) {
			t.Fatalf("%v covers %v of %q, which its prefixes %q or Any leave out", s.Strings(), scope, name, prefixes)
		}
		if !s.Any(scope) && (all || len(prefixes) > 0) {
			t.Fatalf("%v has prefixes for %v, which it does not give", s.Strings(), scope)
		}
		if got {
			covered++
		}
	}
	if covered < 2000 || covered > 18_000 {
		t.Errorf("%d of 20000 were covered, which tests little", covered)
	}
}

func FuzzParseScopes(f *testing.F) {
	for _, s := range []string{"read", "read\nwrite:users/", "admin:", "jobs:a//b", "read:\xff", "read:a/\nread:a"} {
		f.Add(s, "a/b")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		list := strings.Split(text, "\n")
		s, err := ParseScopes(list)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || s != nil {
				t.Fatalf("%v, %v", s, err)
			}
			return
		}
		if !slices.Equal(s.Strings(), list) {
			t.Fatalf("%q is read as %q", list, s.Strings())
		}
		for scope := range Scope(len(scopeNames)) {
			if s.Covers(scope, name) != dumbCovers(list, scope.String(), name) {
				t.Fatalf("%q, %v of %q", list, scope, name)
			}
		}
	})
}
