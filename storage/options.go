package storage

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	badgeroptions "github.com/dgraph-io/badger/v4/options"

	"kvs/types"
)

// Options configure a store. Zero values mean what is said beside them.
type Options struct {
	Dir               string        // the data directory; made if it is missing
	SyncWrites        bool          // fsync before a write is answered
	MemoryBudget      int64         // bytes for memtables and caches; 0 = 256 MiB
	Compression       bool          // compress blocks with ZSTD
	CompressionLevel  int           // ZSTD level; 0 = 3
	MaxClockSkew      time.Duration // refuse remote records dated further ahead; 0 = 5s
	MinFreeDisk       int64         // bytes; refuse writes below; 0 = no watermark
	RevisionLimit     int           // overwritten versions kept per key; 0 = none
	ConflictRetention time.Duration // how long losers are kept; 0 = 30 days
	TombstoneGrace    time.Duration // 0 = 1h
	DefaultMeta       types.Meta    // owner, group and mode of new keys
	Hooks             []Hook

	Wall            func() time.Time            // nil = time.Now
	FreeDisk        func(string) (int64, error) // bytes free for a directory; nil asks the file system
	CheckpointEvery time.Duration               // 0 = 30s
	ScrubEvery      time.Duration               // 0 = 1h; negative = never
	RingBytes       int                         // of recent changes kept in memory; 0 = 8 MiB
	Log             *slog.Logger                // nil = slog.Default

	valueLogFile int64 // bytes of one file; 0 = 256 MiB
}

func (o Options) withDefaults() Options {
	setDefault(&o.MemoryBudget, 256<<20)
	setDefault(&o.CompressionLevel, 3)
	setDefault(&o.MaxClockSkew, 5*time.Second)
	setDefault(&o.ConflictRetention, 30*24*time.Hour)
	setDefault(&o.TombstoneGrace, time.Hour)
	setDefault(&o.CheckpointEvery, 30*time.Second)
	setDefault(&o.ScrubEvery, time.Hour)
	setDefault(&o.RingBytes, 8<<20)
	// Small beside Badger's 1 GiB because a file is collected as a whole, and
	// mapped at twice its size.
	setDefault(&o.valueLogFile, 256<<20)
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.FreeDisk == nil {
		o.FreeDisk = freeDisk
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

const (
	// memtableSize bounds a transaction too: Badger takes 15 % of it, which at
	// 36 MiB lets through the largest atomic batch of MaxBatchOps operations
	// (1 KiB keys, values just below valueThreshold).
	memtableSize = 36 << 20
	// valueThreshold: larger records go to the value log, which is not
	// compressed and has to be collected, but is written once only. Below it,
	// records stay in the compressed tables beside their keys.
	valueThreshold = 2 << 10
)

// badgerOptions are Badger's defaults, but for what is explained here.
func badgerOptions(o Options) badger.Options {
	b := badger.DefaultOptions(o.Dir).WithLogger(badgerLog{o.Log})
	b.SyncWrites = o.SyncWrites
	// The history of a key is Badger's own versions of it.
	b.NumVersionsToKeep = o.RevisionLimit + 1
	// There is one writer, which reads what it decides on itself.
	b.DetectConflicts = false
	b.MetricsEnabled = false

	// Memory: one memtable is being filled and one being flushed, each a third
	// larger than its size; NumMemtables is how many more wait in between. A
	// flush takes less time than filling the next one. Tables are built in
	// memory, several at a time, at twice their size. The defaults would take
	// 7 x 64 MiB of memtables, 256 MiB of block cache, and an index cache without
	// bound.
	b.MemTableSize = memtableSize
	b.NumMemtables = 0
	b.BaseTableSize = max(1<<20, o.MemoryBudget/256)
	b.TableSizeMultiplier = 1
	b.BlockCacheSize = o.MemoryBudget / 10
	b.IndexCacheSize = o.MemoryBudget / 10
	// A block is decompressed as a whole for one read: with 4 KiB, point reads
	// stay cheap and ZSTD still finds most of what repeats.
	b.BlockSize = 4 << 10

	b.ValueThreshold = valueThreshold
	b.ValueLogFileSize = o.valueLogFile
	// Four compactors, the default, would take both cores of a small machine.
	b.NumCompactors = 2

	b.Compression = badgeroptions.None
	if o.Compression {
		b.Compression = badgeroptions.ZSTD
		b.ZSTDCompressionLevel = o.CompressionLevel
	}
	// What Badger's block checksums find, it swallows: the keys of a damaged
	// block are as if they had never been. Without them it dies of a damaged
	// block. ZSTD frames carry a checksum of their own, with the same effect.
	// So records carry one too, and the scrub compares what is on disk with the
	// Merkle tree. Verifying whole tables would make opening one fatal.
	if !o.Compression {
		b.ChecksumVerificationMode = badgeroptions.OnBlockRead
	}
	return b
}

// badgerLog sends Badger's messages where the store's go. What it calls Info is
// of interest to nobody who runs a node.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Error(text(f, a), "from", "badger") }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn(text(f, a), "from", "badger") }
func (l badgerLog) Infof(f string, a ...any)    { l.log.Debug(text(f, a), "from", "badger") }
func (l badgerLog) Debugf(string, ...any)       {}

func text(f string, a []any) string { return strings.TrimSpace(fmt.Sprintf(f, a...)) }
