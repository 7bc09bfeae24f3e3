package backup

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"kvs/storage/codec"
	"kvs/types"
)

// FormatVersion is the version of the files that this package writes and reads.
const FormatVersion = 1

const (
	magic    = "KVSB"
	endMagic = "KVSBEND\n"
	headSize = 8
	endSize  = 16

	blockHead    = 13
	blockTrailer = 4 // CRC32C

	// blockSize is where a block ends, in bytes of payload; a larger record has
	// one for itself.
	blockSize  = 1 << 20
	maxPayload = codec.MaxValue + blockSize
	// maxStored bounds what zstd makes of a payload that it cannot compress.
	maxStored = maxPayload + maxPayload/128 + 1<<10
	// maxText bounds header and trailer; a roster of ten thousand nodes fits.
	maxText = 4 << 20
)

// The kinds of blocks.
const (
	blockHeader  = 1
	blockRecords = 2
	blockEnd     = 3
)

// The kinds of entries.
const (
	entryCurrent = 1
	entryOlder   = 2
	entryGone    = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ID names a backup, whatever its file is called.
type ID uuid.UUID

// String gives the usual text form.
func (id ID) String() string { return uuid.UUID(id).String() }

// Type says what a backup holds.
type Type string

// The types.
const (
	Full        Type = "full"
	Incremental Type = "incremental"
)

// ParseType reads a type.
func ParseType(s string) (Type, error) {
	if t := Type(s); t == Full || t == Incremental {
		return t, nil
	}
	return "", fmt.Errorf("%.40q is no type of backup: full or incremental", s)
}

// Member is a node of the cluster that a backup was made in.
type Member struct {
	UUID   types.NodeID
	NodeID string // empty for a node that is remembered by its UUID alone
	Joined int64  // Unix ms
}

// Header begins a backup.
type Header struct {
	ID       ID
	Type     Type
	Follows  ID // of an incremental backup
	Node     Member
	Roster   []Member // every node that the cluster had, those that were removed included
	Sequence uint64   // the commit whose state this is
	Since    uint64   // changes after this one; 0 for a full backup
	Horizon  int64    // E at that commit, Unix ms
	Created  int64    // Unix ms
	Program  string   // the version of kvs that wrote it
}

// Trailer ends a backup.
type Trailer struct {
	Blocks  uint32 // header and trailer included
	Records uint64 // current versions, tombstones included
	Older   uint64
	Gone    uint64
	Damaged uint64          // keys that the node could not read, and that are not here
	Newest  types.Timestamp // of all records
	Digest  [32]byte        // SHA-256
}

type memberJSON struct {
	UUID   string `json:"uuid"`
	NodeID string `json:"node_id"`
	Joined int64  `json:"joined"`
}

type headerJSON struct {
	ID       string       `json:"id"`
	Type     Type         `json:"type"`
	Follows  string       `json:"follows"` // empty for a full backup
	Node     memberJSON   `json:"node"`
	Roster   []memberJSON `json:"roster"`
	Sequence uint64       `json:"sequence"`
	Since    uint64       `json:"since"`
	Horizon  int64        `json:"horizon"`
	Created  int64        `json:"created"`
	Program  string       `json:"program"`
}

type trailerJSON struct {
	Blocks  uint32 `json:"blocks"`
	Records uint64 `json:"records"`
	Older   uint64 `json:"older"`
	Gone    uint64 `json:"gone"`
	Damaged uint64 `json:"damaged"`
	Newest  uint64 `json:"newest"`
	Digest  []byte `json:"digest"` // base64
}

func (m Member) json() memberJSON { return memberJSON{m.UUID.String(), m.NodeID, m.Joined} }

func (m memberJSON) member() (Member, error) {
	id, err := uuid.Parse(m.UUID)
	return Member{types.NodeID(id), m.NodeID, m.Joined}, err
}

func (h *Header) encode() ([]byte, error) {
	v := headerJSON{
		ID: h.ID.String(), Type: h.Type, Node: h.Node.json(), Roster: []memberJSON{}, Sequence: h.Sequence, Since: h.Since,
		Horizon: h.Horizon, Created: h.Created, Program: h.Program,
	}
	if h.Type == Incremental {
		v.Follows = h.Follows.String()
	}
	for _, m := range h.Roster {
		v.Roster = append(v.Roster, m.json())
	}
	return json.Marshal(v)
}

func decodeHeader(b []byte) (h Header, err error) {
	var v headerJSON
	if err := decodeText(b, &v); err != nil {
		return h, err
	}
	h = Header{Type: v.Type, Sequence: v.Sequence, Since: v.Since, Horizon: v.Horizon, Created: v.Created, Program: v.Program}
	id, err := uuid.Parse(v.ID)
	h.ID = ID(id)
	if err == nil {
		h.Node, err = v.Node.member()
	}
	for _, m := range v.Roster {
		if err != nil {
			break
		}
		var member Member
		member, err = m.member()
		h.Roster = append(h.Roster, member)
	}
	if err != nil {
		return h, err
	}
	switch h.Type {
	case Full:
		if v.Follows != "" || h.Since != 0 {
			return h, errors.New("a full backup follows none")
		}
	case Incremental:
		if id, err = uuid.Parse(v.Follows); err != nil || h.Since == 0 || h.Since > h.Sequence {
			return h, errors.New("an incremental backup has to say which one it follows, and from where to where it goes")
		}
		h.Follows = ID(id)
	default:
		return h, fmt.Errorf("its type is %.40q", v.Type)
	}
	return h, nil
}

func (t *Trailer) encode() ([]byte, error) {
	return json.Marshal(trailerJSON{t.Blocks, t.Records, t.Older, t.Gone, t.Damaged, uint64(t.Newest), t.Digest[:]})
}

func decodeTrailer(b []byte) (t Trailer, err error) {
	var v trailerJSON
	if err := decodeText(b, &v); err != nil {
		return t, err
	}
	if len(v.Digest) != len(t.Digest) {
		return t, errors.New("its digest is none")
	}
	return Trailer{v.Blocks, v.Records, v.Older, v.Gone, v.Damaged, types.Timestamp(v.Newest), [32]byte(v.Digest)}, nil
}

func decodeText(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}

// entry is one entry of a block of records.
type entry struct {
	kind byte
	rec  types.Record // of a key that is gone: the ref alone
	gone vanished
}

// vanished is the end of a key that left no record.
type vanished struct {
	at       types.Timestamp // of the version under which it vanished
	previous types.Timestamp // of the version before; 0 if none is known
}

func appendRecord(b []byte, kind byte, rec *types.Record) []byte {
	return codec.Append(append(b, kind), rec)
}

func appendGone(b []byte, ref types.Ref, v vanished) []byte {
	b = append(b, entryGone, byte(ref.NS))
	b = append(binary.AppendUvarint(b, uint64(len(ref.Key))), ref.Key...)
	b = binary.BigEndian.AppendUint64(b, uint64(v.at))
	return binary.BigEndian.AppendUint64(b, uint64(v.previous))
}

// decodeEntry reads the entry at the start of b, whose values alias b, and gives
// what follows it.
func decodeEntry(b []byte) (e entry, rest []byte, err error) {
	e.kind = b[0]
	switch e.kind {
	case entryCurrent, entryOlder:
		e.rec, rest, err = codec.Decode(b[1:])
		return e, rest, err
	case entryGone:
		if len(b) < 2 || !types.Namespace(b[1]).Valid() {
			return e, nil, errors.New("a key that is gone is in no namespace")
		}
		n, size := binary.Uvarint(b[2:])
		minimal := size == 1 || size > 1 && b[1+size] != 0
		if size <= 0 || !minimal || n > types.MaxInternalKeyLen || uint64(len(b)-2-size) < n+16 {
			return e, nil, errors.New("a key that is gone is cut short or too long")
		}
		key, rest := b[2+size:2+size+int(n)], b[2+size+int(n):]
		e.rec.Ref = types.Ref{NS: types.Namespace(b[1]), Key: types.Key(key)}
		e.gone = vanished{types.Timestamp(binary.BigEndian.Uint64(rest)), types.Timestamp(binary.BigEndian.Uint64(rest[8:]))}
		return e, rest[16:], nil
	}
	return e, nil, fmt.Errorf("an entry of kind %d", e.kind)
}

// frame is a block before its payload.
type frame struct {
	kind            byte
	number          uint32
	stored, payload int
}

func (f frame) append(b []byte) []byte {
	b = append(b, f.kind)
	b = binary.BigEndian.AppendUint32(b, f.number)
	b = binary.BigEndian.AppendUint32(b, uint32(f.stored))
	return binary.BigEndian.AppendUint32(b, uint32(f.payload))
}

// parseFrame reads blockHead bytes. The lengths are within bounds then.
func parseFrame(b []byte) (frame, error) {
	f := frame{kind: b[0], number: binary.BigEndian.Uint32(b[1:])}
	stored, payload := binary.BigEndian.Uint32(b[5:]), binary.BigEndian.Uint32(b[9:])
	limit := uint32(maxPayload)
	if f.kind != blockRecords {
		limit = maxText
	}
	switch {
	case f.kind < blockHeader || f.kind > blockEnd:
		return f, fmt.Errorf("its kind is %d", f.kind)
	case payload > limit || stored > maxStored || payload == 0:
		return f, fmt.Errorf("it claims %d bytes that hold %d", stored, payload)
	}
	f.stored, f.payload = int(stored), int(payload)
	return f, nil
}

// The codecs have no state between blocks.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(blockSize),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true)) // which tells the length always
}

func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxPayload), zstd.WithDecoderMaxWindow(maxPayload))
}

// decompress gives the payload of a block, in a new slice.
func decompress(d *zstd.Decoder, stored []byte, size int) ([]byte, error) {
	// What the frame itself claims is looked at before anything is allocated.
	var h zstd.Header
	if err := h.Decode(stored); err != nil {
		return nil, err
	}
	if h.Skippable || !h.HasFCS || h.FrameContentSize != uint64(size) {
		return nil, errors.New("its compressed frame has another length than the block says")
	}
	b, err := d.DecodeAll(stored, make([]byte, 0, size))
	if err == nil && len(b) != size {
		err = errors.New("it has more than one compressed frame")
	}
	return b, err
}
