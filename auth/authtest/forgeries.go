package authtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Forgeries gives tokens that no node accepts at now or later, by what is wrong
// with them. Some need the secret's keys to be made, and are wrong all the same.
// All can be sent in an HTTP header.
func Forgeries(secret string, now time.Time) map[string]string {
	f := newForger(secret, now)
	all := map[string]string{}
	add := func(name, token string) {
		if _, ok := all[name]; ok || token == f.good() {
			panic(fmt.Sprintf("authtest: %q is there twice, or is no forgery", name))
		}
		all[name] = token
	}
	f.algorithms(add)
	f.keys(add)
	f.keyIDs(add)
	f.headers(add)
	f.missingAndMistyped(add)
	f.times(add)
	f.values(add)
	f.documents(add)
	f.tampered(add)
	f.spellings(add)
	return all
}

type adder func(name, token string)

var null = json.RawMessage("null")

// algorithms: the header names another algorithm than HS256.
func (f *forger) algorithms(add adder) {
	signature := strings.Split(f.good(), ".")[2]
	for name, alg := range map[string]any{
		"none": "none", "None": "None", "NONE": "NONE", "nOnE": "nOnE", "empty": "", "missing": nil, "null": null,
		"a number": 0, "a list": []string{"HS256"}, "in lower case": "hs256", "with a space": "HS256 ", "unknown": "XX256",
	} {
		unsigned := part(changed(f.header, "alg", alg)) + "." + part(f.claims)
		add("alg "+name+", unsigned", unsigned+".")
		add("alg "+name+", two parts", unsigned)
		add("alg "+name+", signature of a good token", unsigned+"."+signature)
		add("alg "+name+", signed by HS256", f.withHeader("alg", alg))
	}
	rsaKey, ecKey := strangers()
	for _, m := range []struct {
		method jwt.SigningMethod
		key    any
	}{
		{jwt.SigningMethodHS384, f.signing}, {jwt.SigningMethodHS512, f.signing},
		{jwt.SigningMethodRS256, rsaKey}, {jwt.SigningMethodPS256, rsaKey}, {jwt.SigningMethodES256, ecKey},
	} {
		alg := m.method.Alg()
		add(alg, with(m.method, m.key, changed(f.header, "alg", alg), f.claims))
		add(alg+" that claims to be HS256", with(m.method, m.key, f.header, f.claims))
		add(alg+", signed by HS256", f.withHeader("alg", alg))
	}
}

// keys: signed by HS256 with what is not the key of client tokens.
func (f *forger) keys(add adder) {
	rsaKey, ecKey := strangers()
	for name, key := range map[string][]byte{
		"empty":               {},
		"zeros":               make([]byte, 32),
		"secret":              []byte(f.secret),
		"gossip":              derive(f.secret, "kvs v1 gossip"),
		"node token":          derive(f.secret, "kvs v1 node token"),
		"token id":            derive(f.secret, "kvs v1 token id"),
		"key id":              derive(f.secret, "kvs v1 key id"),
		"kid":                 []byte(f.kid),
		"another secret's":    newForger(f.secret+"x", f.now).signing,
		"public key, RSA PEM": public(&rsaKey.PublicKey),
		"public key, EC PEM":  public(&ecKey.PublicKey),
	} {
		add("key: "+name, with(jwt.SigningMethodHS256, key, f.header, f.claims))
		add("key: "+name+", without a kid", with(jwt.SigningMethodHS256, key, changed(f.header, "kid", nil), f.claims))
	}
	add("of another secret", newForger(f.secret+"x", f.now).good())
	node := object{
		"iss": "kvs", "aud": "kvs-node", "sub": "01890000-0000-7000-8000-00000000000a", "jti": "01890000-0000-7000-8000-00000000000b",
		"iat": f.now.Unix(), "exp": f.now.Unix() + 60, "method": "GET", "path": "/kv/pub/x",
	}
	nodeKey := derive(f.secret, "kvs v1 node token")
	add("node token", with(jwt.SigningMethodHS256, nodeKey, object{"alg": "HS256", "typ": "JWT"}, node))
	add("node token with our kid", with(jwt.SigningMethodHS256, nodeKey, f.header, node))
	add("claims of a node token", f.sign(f.header, node))
}

// keyIDs: the kid is not that of the key.
func (f *forger) keyIDs(add adder) {
	for name, kid := range map[string]any{
		"path to an empty file": "../../../../../../dev/null", "absolute path": "/dev/null", "URL": "http://127.0.0.1/key",
		"SQL": "x' UNION SELECT ''; --", "shell": "$(true)", "empty": "", "missing": nil, "null": null, "a number": 1,
		"a list": []string{f.kid}, "an object": object{"kid": f.kid}, "unknown": "0123456789abcdef",
		"of another secret": newForger(f.secret+"x", f.now).kid, "in upper case": strings.ToUpper(f.kid + "a"),
		"with a NUL": f.kid + "\x00", "with a space": " " + f.kid, "cut short": f.kid[:15],
	} {
		header := changed(f.header, "kid", kid)
		add("kid "+name+", empty key", with(jwt.SigningMethodHS256, []byte{}, header, f.claims))
		add("kid "+name+", our key", f.sign(header, f.claims))
	}
}

// headers: the header brings a key along, or says what is not understood.
func (f *forger) headers(add adder) {
	own := []byte("a key that the token brings along")
	rsaKey, _ := strangers()
	oct := object{"kty": "oct", "alg": "HS256", "kid": f.kid, "k": encode(own)}
	rsaJWK := object{"kty": "RSA", "kid": f.kid, "e": "AQAB", "n": encode(rsaKey.N.Bytes())}
	der := base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey))
	for _, h := range []struct {
		name   string
		member string
		value  any
	}{
		{"jwk", "jwk", oct}, {"jwk, RSA", "jwk", rsaJWK}, {"jku", "jku", "http://127.0.0.1/jwks.json"},
		{"x5u", "x5u", "http://127.0.0.1/cert.pem"}, {"x5c", "x5c", []string{der}}, {"x5t", "x5t", "x"},
		{"crit", "crit", []string{"exp"}}, {"empty crit", "crit", []string{}}, {"b64", "b64", false}, {"zip", "zip", "DEF"},
		{"cty", "cty", "JWT"}, {"enc", "enc", "A256GCM"}, {"unknown member", "x", 1},
		{"typ missing", "typ", nil}, {"typ in lower case", "typ", "jwt"}, {"typ at+jwt", "typ", "at+jwt"}, {"typ a number", "typ", 1},
	} {
		header := changed(f.header, h.member, h.value)
		add("header: "+h.name+", signed by us", f.sign(header, f.claims))
		add("header: "+h.name+", signed by its key", with(jwt.SigningMethodHS256, own, header, f.claims))
		add("header: "+h.name+", RS256", with(jwt.SigningMethodRS256, rsaKey, changed(header, "alg", "RS256"), f.claims))
	}
}

// missingAndMistyped: each claim is missing, and is of each wrong type.
func (f *forger) missingAndMistyped(add adder) {
	for name, good := range f.claims {
		add("without "+name, f.withClaim(name, nil))
		for kind, value := range map[string]any{
			"null": null, "true": true, "an object": object{}, "an empty list": []string{}, "a list": []any{good},
			"a number": 1, "a string": "x", "an empty string": "", "a list of numbers": []int{1},
		} {
			add(name+" is "+kind, f.withClaim(name, value))
		}
	}
}

// times: the token is not good now, or says when in an odd way.
func (f *forger) times(add adder) {
	exp := f.claims["exp"].(float64)
	for name, value := range map[string]any{
		"now": seconds(f.now), "just past": seconds(f.now.Add(-time.Millisecond)), "zero": 0, "negative": -exp,
		"1e300": 1e300, "1e18": 1e18, "milliseconds": exp * 1000, "ten years and a second": seconds(f.now.Add(10*365*24*time.Hour + time.Second)),
		"the string of a number": fmt.Sprint(exp), "the string NaN": "NaN", "the string Infinity": "Infinity",
	} {
		add("exp is "+name, f.withClaim("exp", value))
	}
	for name, spelling := range map[string]string{
		"NaN": "NaN", "Infinity": "Infinity", "1e400": "1e400", "hexadecimal": "0x7fffffff", "with a plus": "+1", "with an exponent": fmt.Sprintf("%.1fe1", exp/10),
		"with a fraction of zero": fmt.Sprintf("%.0f.0", exp), "with leading zeros": fmt.Sprintf("00%.0f", exp),
	} {
		add("exp is written "+name, f.sign(f.header, strings.Replace(text(f.claims), `"exp":`+text(exp), `"exp":`+spelling, 1)))
	}
	add("nbf in an hour", f.withClaim("nbf", exp))
	add("nbf is a string", f.withClaim("nbf", "x"))
	add("nbf is negative", f.withClaim("nbf", -1))
	add("iat is negative", f.withClaim("iat", -1))
	add("iat after exp", f.withClaim("iat", exp+1))
	add("iat at exp", f.withClaim("iat", exp))
}

// values: claims of the right type that say the wrong thing.
func (f *forger) values(add adder) {
	const user = "01890000-0000-7000-8000-0000000000ab"
	id := f.tokenID(0)
	for claim, values := range map[string][]any{
		"aud": {"kvs-node", "kvs", "kvs-client ", "KVS-CLIENT", []string{"kvs-client", "kvs-node"}, []string{"kvs-client", "kvs-client"}},
		"iss": {"other", "KVS", "kvs "},
		"sub": {"anonymous", "Root", "root ", " root", "root\x00", "admin", "node1", strings.ToUpper(user), "urn:uuid:" + user,
			"{" + user + "}", strings.ReplaceAll(user, "-", ""), "00000000-0000-0000-0000-000000000000", user + "\n", user[:35], "*"},
		"jti": {"1", user, flip(id, 0), flip(id, 31), id + "A", id[:31], id + "=", newForger(f.secret+"x", f.now).tokenID(0), strings.Repeat("A", 32)},
		"scopes": {[]string{"unknown"}, []string{"Admin"}, []string{"admin", "admin"}, []string{"admin", ""}, []string{"admin:"},
			[]string{"admin "}, []string{"admin", "super"}, []string{"read:a//b"}, []string{"read:/"}, []string{"read:../x"}, []string{"read:a\x00"},
			[]string{"read,admin"}, "read admin", []string{"*"}, []string{"read:" + strings.Repeat("x", 1025)}, object{"admin": true}, []any{"admin", 1}, []any{[]string{"admin"}}},
	} {
		for _, value := range values {
			add(claim+" is "+clip(text(value)), f.withClaim(claim, value))
		}
	}
	add("unknown claim", f.withClaim("admin", true))
	add("scope instead of scopes", f.sign(f.header, changed(changed(f.claims, "scopes", nil), "scope", "admin")))
}

// documents: JSON that readers may understand in different ways.
func (f *forger) documents(add adder) {
	header, claims := text(f.header), text(f.claims)
	first := func(doc, member string) string { return "{" + member + "," + doc[1:] }
	last := func(doc, member string) string { return doc[:len(doc)-1] + "," + member + "}" }
	for _, member := range []string{`"alg":"none"`, `"alg":"HS256"`, `"kid":"x"`, `"typ":"JWT"`, `"ALG":"none"`, `"\u0061lg":"none"`} {
		add("header with another "+member+" first", f.sign(first(header, member), f.claims))
		add("header with another "+member+" last", f.sign(last(header, member), f.claims))
	}
	for _, member := range []string{`"aud":"kvs-client"`, `"exp":1`, `"exp":99999999999`, `"EXP":1`, `"iss":"kvs"`, `"sub":"root"`, `"Sub":"root"`,
		`"scopes":["admin"]`, `"\u0073copes":["admin"]`, `"jti":"x"`, `"nbf":1,"nbf":1`, `"nbf":0`} {
		add("claims with another "+member+" first", f.sign(f.header, first(claims, member)))
		add("claims with another "+member+" last", f.sign(f.header, last(claims, member)))
	}
	for name, change := range map[string]func(string) string{
		"with a space":          func(s string) string { return "{ " + s[1:] },
		"with a line end":       func(s string) string { return s + "\n" },
		"with a BOM":            func(s string) string { return "\ufeff" + s },
		"with something behind": func(s string) string { return s + "{}" },
		"cut short":             func(s string) string { return s[:len(s)-1] },
		"in a list":             func(s string) string { return "[" + s + "]" },
		"as a string":           func(s string) string { return text(s) },
		"empty":                 func(string) string { return "" },
		"an empty object":       func(string) string { return "{}" },
		"null":                  func(string) string { return "null" },
		"deep":                  func(string) string { return strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 500) },
		"with a letter escaped": func(s string) string { return strings.Replace(s, `"k`, `"\u006b`, 1) },
		"with its members moved": func(s string) string {
			first, rest, _ := strings.Cut(s[1:len(s)-1], ",")
			return "{" + rest + "," + first + "}"
		},
	} {
		add("header "+name, f.sign(change(header), f.claims))
		add("claims "+name, f.sign(f.header, change(claims)))
	}
	add("claims with invalid UTF-8", f.sign(f.header, strings.Replace(claims, "pub/", "pub\xff/", 1)))
	// Good but for its length.
	var scopes []string
	for i := range 5 {
		scopes = append(scopes, fmt.Sprintf("read:%d", i)+strings.Repeat("x", 1000))
	}
	add("huge", f.withClaim("scopes", scopes))
	add("huge and garbage", strings.Repeat("A", 8000))
}

// tampered: a good token in which something was changed, the signature not.
func (f *forger) tampered(add adder) {
	good := f.good()
	parts := strings.Split(good, ".")
	other := strings.Split(f.withClaim("jti", f.tokenID(1)), ".")
	add("payload of another token", join(parts[0], other[1], parts[2]))
	add("signature of another token", join(parts[0], parts[1], other[2]))
	add("payload with more scopes", join(parts[0], part(changed(f.claims, "scopes", []string{"admin"})), parts[2]))
	add("payload with a later exp", join(parts[0], part(changed(f.claims, "exp", seconds(f.now.Add(2*time.Hour)))), parts[2]))
	for i, name := range []string{"header", "payload", "signature"} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			panic(fmt.Sprintf("authtest: %v", err))
		}
		for bit := range 8 * len(raw) {
			// Every bit of the signature, and one of each byte of the rest.
			if name != "signature" && bit%8 != bit/8%8 {
				continue
			}
			changed := append([]byte{}, raw...)
			changed[bit/8] ^= 1 << (bit % 8)
			p := append([]string{}, parts...)
			p[i] = encode(changed)
			add(fmt.Sprintf("%s with bit %d flipped", name, bit), join(p...))
		}
		for _, n := range []int{0, 1, 16, len(raw) - 1} {
			p := append([]string{}, parts...)
			p[i] = encode(raw[:n])
			add(fmt.Sprintf("%s cut to %d bytes", name, n), join(p...))
		}
	}
	add("signature of zeros", join(parts[0], parts[1], encode(make([]byte, 32))))
	add("signature twice", join(parts[0], parts[1], parts[2]+parts[2]))
	add("one character short", good[:len(good)-1])
}

// spellings: what a lenient reader would take for a good token.
func (f *forger) spellings(add adder) {
	good := f.good()
	parts := strings.Split(good, ".")
	add("empty", "")
	add("two empty parts", ".")
	add("three empty parts", "..")
	add("one part", parts[0])
	add("two parts", join(parts[0], parts[1]))
	add("two parts and a dot", join(parts[0], parts[1], ""))
	add("four parts", good+"."+parts[2])
	add("four parts, the last empty", good+".")
	add("four parts, the first empty", "."+good)
	add("five parts, as encrypted ones have", join(parts[0], "", parts[1], "", parts[2]))
	add("commas for dots", strings.ReplaceAll(good, ".", ","))
	add("JSON serialization", text(object{"protected": parts[0], "payload": parts[1], "signature": parts[2]}))
	add("in quotes", `"`+good+`"`)
	add("Bearer twice", "Bearer "+good)
	for i, name := range []string{"header", "payload", "signature"} {
		for what, change := range map[string]func(string) string{
			"padded by =":            func(s string) string { return s + "=" },
			"padded by ==":           func(s string) string { return s + "==" },
			"begun with a space":     func(s string) string { return " " + s },
			"with a space inside":    func(s string) string { return s[:5] + " " + s[5:] },
			"with a tab inside":      func(s string) string { return s[:5] + "\t" + s[5:] },
			"with an escaped letter": func(s string) string { return fmt.Sprintf("%%%02X", s[0]) + s[1:] },
			"with a character more":  func(s string) string { return s + "A" },
		} {
			p := append([]string{}, parts...)
			p[i] = change(p[i])
			add(name+" "+what, join(p...))
		}
	}
	// 43 characters hold 258 bits, two more than the signature: lenient decoders
	// ignore them.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	for spare := 1; spare <= 3; spare++ {
		add(fmt.Sprintf("signature with spare bits %d", spare), good[:len(good)-1]+alphabet[last|spare:][:1])
	}
	add("signature in standard base64", f.standardBase64())
}

// standardBase64 spells the signature with + and / where a good token has - and
// _, for the first token that has any.
func (f *forger) standardBase64() string {
	for n := byte(0); ; n++ {
		token := f.withClaim("jti", f.tokenID(n))
		dot := strings.LastIndexByte(token, '.')
		if spelled := strings.NewReplacer("-", "+", "_", "/").Replace(token[dot:]); spelled != token[dot:] {
			return token[:dot] + spelled
		}
	}
}

func join(parts ...string) string { return strings.Join(parts, ".") }

// flip changes a letter of base64url to another.
func flip(s string, i int) string {
	letter := "A"
	if s[i] == 'A' {
		letter = "B"
	}
	return s[:i] + letter + s[i+1:]
}

func clip(s string) string { return s[:min(len(s), 60)] }

// strangers are key pairs that no cluster knows.
var strangers = sync.OnceValues(func() (*rsa.PrivateKey, *ecdsa.PrivateKey) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(fmt.Sprintf("authtest: %v", err))
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("authtest: %v", err))
	}
	return r, e
})

// public gives a public key as it is published.
func public(key any) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(fmt.Sprintf("authtest: %v", err))
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
