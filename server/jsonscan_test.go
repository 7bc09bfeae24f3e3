package server

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

var jsonSeeds = []string{
	`1`, `-0.5e+10`, `01`, `1.`, `.5`, `-`, `1e`, `"a"`, `"\u00zz"`, `"\x"`, `"a`, `{`, `{"a"`, `{"a":`, `{"a":1,}`, `{"a":1}`, `[1,]`, `[]`, `[[],{}]`,
	`tru`, `truex`, `null`, `nul`, ` 1 `, "\t[1 ,\n2]", `{"data":1,"ttl":"1h"}`, `{"a":1 "b":2}`, "\"\x00\"", "\"\xff\"", `{1:2}`, `1 1`, ``, ` `, "\ufeff1",
	strings.Repeat("[", 20) + strings.Repeat("]", 20),
}

// FuzzScanner compares with encoding/json, which differs only in taking strings
// that are not UTF-8.
func FuzzScanner(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := validJSON(b)
		if want := json.Valid(b) && utf8.Valid(b); (err == nil) != want {
			t.Fatalf("%q: %v, but valid is %v", b, err, want)
		}
		if err == nil && !bytes.Equal(got, bytes.Trim(b, " \t\r\n")) {
			t.Fatalf("%q became %q", b, got)
		}
	})
}

// FuzzEnvelope compares with a plain decoding of the members.
func FuzzEnvelope(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"\u0064ata":[1],"ttl":null}`))
	f.Add([]byte(`{"data":1,"data":1,"ttl":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := validJSON(b)
		if err != nil {
			return
		}
		data, ttl, ok := envelope(doc)
		var m map[string]json.RawMessage
		_ = json.Unmarshal(doc, &m)
		want := len(m) == 2 && m["data"] != nil && m["ttl"] != nil && bytes.HasPrefix(doc, []byte("{"))
		if ok && !want {
			t.Fatalf("%s is taken for an envelope", doc)
		}
		if ok && (!bytes.Equal(data, m["data"]) || !bytes.Equal(ttl, m["ttl"])) {
			t.Fatalf("%s: data %s, ttl %s", doc, data, ttl)
		}
		// A member given twice is not "exactly those members".
		if want && !ok && bytes.Count(doc, []byte(":")) == 2 {
			t.Fatalf("%s is not taken for an envelope", doc)
		}
	})
}

func TestDepth(t *testing.T) {
	deep := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if _, err := validJSON(deep(maxJSONDepth)); err != nil {
		t.Error(err)
	}
	if _, err := validJSON(deep(maxJSONDepth + 1)); err == nil {
		t.Error("no bound on the depth")
	}
	if _, err := validJSON(bytes.Repeat([]byte(`{"a":`), 1_000_000)); err == nil {
		t.Error("no bound on the depth of objects")
	}
}

// FuzzAppendString: whatever comes in, a JSON string comes out, and it reads
// back as what came in where that was UTF-8.
func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "a", `"\`, "\x00\x1f\x7f", "\xff", "é\u2028", "a\xc3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%q became %s: %v", s, b, err)
		}
		if !utf8.Valid(b) || utf8.ValidString(s) && back != s {
			t.Fatalf("%q became %q", s, back)
		}
	})
}

func BenchmarkValidJSON(b *testing.B) {
	doc := []byte(`{"name":"libexample-dev","version":"1.2.3-4","section":"libdevel","size":123456,"depends":["libc6","libexample1"],"description":"development files for an example that is of about this length"}`)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, err := validJSON(doc); err != nil {
			b.Fatal(err)
		}
	}
}
