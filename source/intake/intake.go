package intake

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"

	"tallyman/internal/kafkaconn"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/source/journal"
)

// Stdin is the name of standard input among files.
const Stdin = "-"

// Errors that a caller can act on; they come wrapped.
var (
	// ErrInUse: another push of the same content is under way.
	ErrInUse = errors.New("another push of the same content is under way")
	// ErrOtherManifest: the content's ids are taken, for rows by another
	// manifest or with another text for NULL.
	ErrOtherManifest = errors.New("this content was pushed before, with other rows for the same ids")
	// ErrTooLarge: a batch of the file exceeds the topic's message limit.
	ErrTooLarge = errors.New("the topic's message limit is too small")
)

// Config describes an intake.
type Config struct {
	// Manifest is the dataset that the files are of. Required.
	Manifest schema.Manifest
	// Conn is the way to Kafka. The intake does not close it. Required, unless
	// To is given.
	Conn *kafkaconn.Conn
	// To is a daemon that takes the batches instead. Defaults to none.
	To *Remote
	// Dir is the state directory; pushes are kept in its subdirectory push. Required.
	Dir string
	// Source is the producer's name, written into every batch. Required.
	Source string
	// Null is the text of a CSV field that, without quotes, means NULL.
	// Defaults to the empty text.
	Null string
	// Again is a label under which the same content gets other ids, so that it
	// is loaded once more. Defaults to none.
	Again string
	// Stdin is what the file named "-" is read from. Defaults to nothing.
	Stdin io.Reader
	// Progress is told how far a push came. It is called from one goroutine at
	// a time. Defaults to nobody.
	Progress func(Progress)
	// Published is told each batch of a file, once all of them are published. It
	// must not keep the batch's value. Defaults to nobody.
	Published func(*batch.Batch)
	// Logger gets warnings, as about an absent Kafka. Defaults to slog.Default().
	Logger *slog.Logger
}

// Stage is a part of a push.
type Stage string

// The stages of a push, in their order.
const (
	Hashing    Stage = "read"    // in bytes of the file
	Encoding   Stage = "encode"  // in bytes of the file
	Publishing Stage = "publish" // in batches
)

// Progress is how far a push came.
type Progress struct {
	Stage       Stage
	Done, Total int64
}

// File is a file to push.
type File struct {
	Name   string // Stdin: standard input
	Format Format
}

// Report is what became of a file. Batches is 0 until it is read whole.
type Report struct {
	File    string `json:"file"`
	Format  Format `json:"format"`
	SHA256  string `json:"sha256"` // of the uncompressed bytes
	Rows    int64  `json:"rows"`
	Batches int64  `json:"batches"`
	Bytes   int64  `json:"bytes"` // uncompressed
	// Published is how many of the batches Kafka has acknowledged.
	Published int64 `json:"published"`
	// Again says that all had been published before, by this machine.
	Again bool `json:"again"`
}

// Intake pushes files into one dataset. It is not safe for concurrent use.
type Intake struct {
	cfg   Config
	codec *rows.Codec
	hash  string // of the manifest
	// remote takes the batches; nil: Kafka does.
	remote *remote
}

// New checks the configuration.
func New(cfg Config) (*Intake, error) {
	if (cfg.Conn == nil) == (cfg.To == nil) || cfg.Dir == "" || cfg.Source == "" {
		return nil, errors.New("intake: Conn or To, Dir and Source are required")
	}
	if cfg.Stdin == nil {
		cfg.Stdin = strings.NewReader("")
	}
	if cfg.Progress == nil {
		cfg.Progress = func(Progress) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	codec, err := rows.NewCodec(cfg.Manifest)
	if err != nil {
		return nil, fmt.Errorf("intake: %w", err)
	}
	in := &Intake{cfg: cfg, codec: codec, hash: cfg.Manifest.Hash()}
	if cfg.To != nil {
		if in.remote, err = newRemote(*cfg.To, cfg.Manifest.Dataset.String()); err != nil {
			return nil, fmt.Errorf("intake: %w", err)
		}
	}
	return in, nil
}

// Push reads a file, journals it and publishes it. It returns nil once Kafka
// has acknowledged every batch. After any other answer the same call goes on
// where this one ended; the report says how far it came, and unless Batches is
// set nothing was published.
func (in *Intake) Push(ctx context.Context, f File) (Report, error) {
	report := Report{File: f.Name, Format: f.Format}
	if err := in.push(ctx, f, &report); err != nil {
		return report, fmt.Errorf("%s: %w", f.Name, err)
	}
	return report, nil
}

func (in *Intake) push(ctx context.Context, f File, report *Report) (err error) {
	topic := in.topic(ctx)
	if topic.err != nil && !topic.away {
		return topic.err
	}
	src, err := in.open(ctx, f.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	p := &push{Intake: in, file: f, src: src, topic: topic, seed: maphash.MakeSeed()}
	reading := p.begin(ctx)
	defer reading.end()
	if p.fingerprint, err = src.digest(ctx, p.seed, in.progress(Hashing, src.size)); err != nil {
		if ctx.Err() != nil {
			return interrupted(ctx)
		}
		return fmt.Errorf("read: %w", err)
	}
	report.SHA256 = p.content.String()
	p.dir = filepath.Join(in.root(), batch.FileID(in.cfg.Manifest.Dataset, string(f.Format), p.content, 0, in.cfg.Again).String())
	return p.run(ctx, reading, report)
}

// root returns the directory of all pushes.
func (in *Intake) root() string { return filepath.Join(in.cfg.Dir, "push") }

func (in *Intake) progress(stage Stage, total int64) func(int64) {
	return func(done int64) { in.cfg.Progress(Progress{Stage: stage, Done: done, Total: total}) }
}

// push is the push of one file's content.
type push struct {
	*Intake
	*fingerprint              // nil until the file was read once
	seed         maphash.Seed // of the fingerprint
	file         File
	src          *input
	topic        topic
	dir          string
}

func (p *push) journalDir() string { return filepath.Join(p.dir, "journal") }

// openJournal opens the journal, to fill it or to publish from it. Its limit
// is for nobody: whether the topic takes a batch is decided for the file as a whole.
func (p *push) openJournal(source string, fill bool) (*journal.Journal, error) {
	return journal.Open(journal.Config{
		Dir: p.journalDir(), Source: source, MaxMessageBytes: math.MaxInt, Bulk: fill, Logger: p.cfg.Logger,
	})
}

func (p *push) run(ctx context.Context, r *reading, report *Report) error {
	lock, err := journal.Lock(p.dir)
	if errors.Is(err, journal.ErrInUse) {
		return fmt.Errorf("%w, in %s: wait until it ends", ErrInUse, p.dir)
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // its file has no content that could be lost
	done, err := readState(p.dir)
	if err != nil {
		return err
	}
	if done == nil {
		if done, err = p.encode(ctx, r); err != nil {
			if ctx.Err() != nil {
				err = interrupted(ctx)
			}
			// Reading starts over: leave no trace.
			return errors.Join(err, os.RemoveAll(p.dir))
		}
	}
	r.end() // of what was read before, the journal has it all
	if done.Manifest != p.hash || done.Null != p.cfg.Null {
		return p.taken(done)
	}
	report.Rows, report.Batches, report.Bytes = done.Rows, done.Batches, done.Bytes
	return p.publish(ctx, done, report)
}

// interrupted is the error of a push that was told to end before the file was read whole.
func interrupted(ctx context.Context) error {
	return fmt.Errorf("interrupted, with nothing published; push the file again: %w", context.Cause(ctx))
}

// taken explains why the content can't be pushed like this.
func (p *push) taken(done *state) error {
	how := "by the manifest " + done.Manifest + ", not " + p.hash
	if done.Manifest == p.hash {
		how = fmt.Sprintf("with %q for NULL, not %q", done.Null, p.cfg.Null)
	}
	return fmt.Errorf("%w: %s; loaders would refuse it as id_conflict. To load it once more, as other rows, give it a label with --again", ErrOtherManifest, how)
}

// encode has the file read into a new journal and notes that it is whole.
func (p *push) encode(ctx context.Context, r *reading) (*state, error) {
	// What an earlier push left that ended while reading.
	if err := os.RemoveAll(p.journalDir()); err != nil {
		return nil, err
	}
	j, err := p.openJournal(p.cfg.Source, true)
	if err != nil {
		return nil, err
	}
	r.know(p.content, j)
	total, err := r.wait()
	if err == nil {
		p.progress(Encoding, p.src.size)(p.src.size)
	}
	if err = errors.Join(err, j.Close()); err != nil {
		return nil, err
	}
	if err := p.limit(ctx, total); err != nil {
		return nil, err
	}
	s := &state{
		Dataset: p.cfg.Manifest.Dataset.String(), Format: p.file.Format, SHA256: p.content.String(), Label: p.cfg.Again,
		Manifest: p.hash, Null: p.cfg.Null, Source: p.cfg.Source,
		Rows: total.rows, Batches: total.batches, Bytes: total.bytes,
	}
	if err := errors.Join(s.write(p.dir), syncDir(p.root())); err != nil {
		return nil, fmt.Errorf("note that the file was read: %w", err)
	}
	return s, nil
}

// errChanged is the error for a file whose second reading differs from the first.
var errChanged = errors.New("the file was changed while it was read")

// read reads the file a second time, into a journal.
func (p *push) read(ctx context.Context, e *encoding) (totals, error) {
	tell := p.progress(Encoding, p.src.size)
	r, err := p.src.read(ctx, func(done int64) {
		if e.isKnown() { // before that, the first reading tells how far it came
			tell(done)
		}
	})
	if err != nil {
		return totals{}, fmt.Errorf("read: %w", err)
	}
	defer func() { _ = r.Close() }()
	var again maphash.Hash
	again.SetSeed(p.seed)
	total, err := e.run(ctx, io.TeeReader(r, &again))
	if err == nil && again.Sum64() != p.quick.Sum64() {
		err = errChanged
	}
	return total, err
}

// envelopeBytes is room for a message's key and headers.
const envelopeBytes = 4 << 10

// limit refuses a file of which the topic does not take every batch. If Kafka
// was away before, it is waited for.
func (p *push) limit(ctx context.Context, t totals) error {
	if err := p.await(ctx); err != nil {
		return err
	}
	if need := t.largest + envelopeBytes; need > p.topic.limit {
		return fmt.Errorf("the rows from line %d on make a message of %d bytes, and topic %s takes %d: %w; raise its max.message.bytes",
			t.largestLine, need, p.cfg.Manifest.Topic, p.topic.limit, ErrTooLarge)
	}
	return nil
}
