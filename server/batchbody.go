package server

import (
	"encoding/base64"
	"encoding/json"

	"kvs/storage"
	"kvs/types"
)

// What one batch may be. The body's bound leaves 1 MiB for what is around
// 16 MiB of values.
const (
	maxBatchOps  = storage.MaxBatchOps
	maxBatchBody = 17 << 20
)

// batchOp is one parsed operation, or what is wrong with it.
type batchOp struct {
	op          storage.Op
	conditional bool // it depends on what is there, apart from permissions
	err         error
}

// parseBatch reads a batch's body in one pass. The values are slices of it. The
// error is about the whole; an operation that is wrong by itself is marked.
func (a *api) parseBatch(body []byte) (ops []batchOp, atomic bool, err error) {
	s := scanner{b: body}
	s.space()
	var hasOps, hasAtomic bool
	err = s.object(0, func(name []byte) error {
		switch memberName(name) {
		case "ops":
			if hasOps {
				return invalidBody.refuse(`"ops" is given twice`)
			}
			hasOps = true
			ops, err = a.parseOps(&s)
			return err
		case "atomic":
			start := s.i
			if err := s.value(1); err != nil {
				return err
			}
			text := string(body[start:s.i])
			if hasAtomic || text != "true" && text != "false" {
				return invalidBody.refuse(`"atomic": want true or false, once`)
			}
			hasAtomic, atomic = true, text == "true"
			return nil
		}
		return invalidBody.refuse(`unknown member %.40s: a batch has "atomic" and "ops"`, name)
	})
	if err == nil {
		if s.space(); s.i != len(body) {
			err = s.fail("after the batch")
		}
	}
	switch err.(type) {
	case nil:
	case *refusal:
		return nil, false, err
	default:
		return nil, false, invalidJSON.refuse("%s", err)
	}
	if !hasOps {
		return nil, false, invalidBody.refuse(`"ops" is missing: want {"ops":[{"op":"put","key":…,"data":…}, …]}`)
	}
	return ops, atomic, nil
}

func (a *api) parseOps(s *scanner) ([]batchOp, error) {
	if s.peek() != '[' {
		return nil, invalidBody.refuse(`"ops": want a list`)
	}
	var ops []batchOp
	err := s.array(1, func() error {
		if len(ops) == maxBatchOps {
			return batchTooLarge.refuse("a batch has %d operations at most", maxBatchOps)
		}
		if s.peek() != '{' {
			ops = append(ops, batchOp{err: invalidBody.refuse("an operation is an object")})
			return s.value(2)
		}
		var f opFields
		if err := s.object(2, func(name []byte) error { return f.member(s, name) }); err != nil {
			return err
		}
		op := batchOp{err: f.err}
		if op.err == nil {
			op.op, op.err = a.operation(&f)
		}
		ops = append(ops, op)
		return nil
	})
	return ops, err
}

// opFields are the members of an operation, as they came; nil if absent.
type opFields struct {
	op, key, data, ttl, contentType, ifMatch []byte
	err                                      error
}

// member takes one in. What is wrong with it is kept: the object is passed over
// to its end, since the others of the batch go on.
func (f *opFields) member(s *scanner, name []byte) error {
	start := s.i
	if err := s.value(3); err != nil {
		return err
	}
	var into *[]byte
	switch memberName(name) {
	case "op":
		into = &f.op
	case "key":
		into = &f.key
	case "data":
		into = &f.data
	case "ttl":
		into = &f.ttl
	case "content_type":
		into = &f.contentType
	case "if_match":
		into = &f.ifMatch
	}
	switch {
	case into == nil:
		f.fail(invalidBody.refuse(`unknown member %.40s: an operation has op, key, data, ttl, content_type, if_match`, name))
	case *into != nil:
		f.fail(invalidBody.refuse("member %s is given twice", name))
	default:
		*into = s.b[start:s.i]
	}
	return nil
}

func (f *opFields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// operation makes what the committer does of it.
func (a *api) operation(f *opFields) (op storage.Op, err error) {
	kind, err := textMember("op", f.op)
	if err != nil {
		return op, err
	}
	text, err := textMember("key", f.key)
	if err != nil {
		return op, err
	}
	key, err := parseKey(text)
	if err != nil {
		return op, err
	}
	op.Ref = types.DataRef(key)
	if f.ifMatch != nil {
		if op.Guard, err = ifMatchGuard(f.ifMatch, kind); err != nil {
			return op, err
		}
	}
	switch kind {
	case "put":
		return op, a.fillPut(&op, f)
	case "get":
		op.Kind = storage.OpGet
	case "delete":
		op.Kind = storage.OpDelete
	default:
		return op, invalidBody.refuse(`"op": want "put", "get" or "delete", not %.40q`, kind)
	}
	if f.data != nil || f.ttl != nil || f.contentType != nil {
		return op, invalidBody.refuse("data, ttl and content_type belong to a put")
	}
	return op, nil
}

func (a *api) fillPut(op *storage.Op, f *opFields) (err error) {
	op.Kind, op.TTL = storage.OpPut, a.defaultTTL
	if f.data == nil {
		return invalidBody.refuse(`"data" is missing`)
	}
	if f.ttl != nil {
		if op.TTL, err = parseTTL(f.ttl); err != nil {
			return err
		}
	}
	op.Value = f.data
	if f.contentType != nil {
		if err := fillBytes(op, f); err != nil {
			return err
		}
	}
	return a.checkSize(op.Value)
}

// fillBytes reads a value of bytes: base64, as a get answers it.
func fillBytes(op *storage.Op, f *opFields) error {
	text, err := textMember("content_type", f.contentType)
	if err != nil {
		return err
	}
	form, err := formOf(map[string][]string{"Content-Type": {text}})
	if err != nil {
		return err
	}
	if form.json && !form.guess {
		return nil
	}
	data, err := textMember("data", f.data)
	if err == nil {
		op.Value, err = base64.StdEncoding.DecodeString(data)
	}
	if err != nil {
		return invalidBody.refuse(`"data": with a content_type other than application/json it is base64 in a string`)
	}
	op.Raw, op.ContentType = true, text
	return nil
}

// textMember reads a member that has to be a string.
func textMember(name string, text []byte) (string, error) {
	if text == nil {
		return "", invalidBody.refuse("%q is missing", name)
	}
	if text[0] != '"' {
		return "", invalidBody.refuse("%q: want a string, not %.40s", name, text)
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return "", invalidBody.refuse("%q: %s", name, err)
	}
	return s, nil
}

// ifMatchGuard reads if_match: the uuid of a version, or what the If-Match
// header takes.
func ifMatchGuard(text []byte, kind string) (guard, error) {
	s, err := textMember("if_match", text)
	if err != nil {
		return nil, err
	}
	match := &etags{list: []etag{{value: s}}}
	if _, err := types.ParseVersionID(s); err != nil {
		var ok bool
		if match, ok = parseETagList(s); !ok {
			return nil, invalidBody.refuse(`"if_match": want the uuid of a version, not %.40q`, s)
		}
	}
	return conditions{match: match}.guard(kind != "put"), nil
}
