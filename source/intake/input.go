package intake

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"tallyman/schema/batch"
)

// Format is how a file is written.
type Format string

// The formats. Their names are part of every id, so they are frozen.
const (
	CSV    Format = "csv"
	NDJSON Format = "ndjson"
)

// FormatOf tells the format by a file's name: .csv, .ndjson or .jsonl, before
// .gz or .zst if it has one of these.
func FormatOf(name string) (Format, error) {
	plain := strings.ToLower(filepath.Base(name))
	for _, packed := range []string{".gz", ".zst"} {
		plain = strings.TrimSuffix(plain, packed)
	}
	switch filepath.Ext(plain) {
	case ".csv":
		return CSV, nil
	case ".ndjson", ".jsonl":
		return NDJSON, nil
	default:
		return "", fmt.Errorf("%s: the name does not tell the format, as .csv, .ndjson, .jsonl and these with .gz or .zst do", name)
	}
}

// input is a file that can be read more than once.
type input struct {
	file  *os.File
	size  int64  // in bytes, as they are in the file
	spool string // to remove when it is closed; empty: nothing
}

// open opens a file. Standard input and whatever else can't be read twice is
// spooled first.
func (in *Intake) open(ctx context.Context, name string) (*input, error) {
	if name == Stdin {
		return spool(ctx, in.cfg.Stdin, in.root())
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, errors.Join(err, file.Close())
	case info.Mode().IsRegular():
		return &input{file: file, size: info.Size()}, nil
	case info.IsDir():
		return nil, errors.Join(errors.New("it is a directory"), file.Close())
	}
	defer func() { _ = file.Close() }()
	return spool(ctx, file, in.root())
}

// spool copies a stream into a file that nobody else sees. If ctx ends, the
// stream may be read from for as long as it gives nothing: a read from a
// terminal or a pipe can't be called back.
func spool(ctx context.Context, stream io.Reader, dir string) (*input, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	file, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	in := &input{file: file}
	// Where an open file can be removed, a crash leaves nothing behind.
	if os.Remove(file.Name()) != nil {
		in.spool = file.Name()
	}
	copied := make(chan error, 1)
	go func() {
		n, err := io.Copy(file, stream)
		in.size = n
		copied <- err
	}()
	select {
	case err = <-copied:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("spool: %w", errors.Join(err, in.close()))
	}
	return in, nil
}

func (in *input) close() error {
	err := in.file.Close()
	if in.spool != "" {
		err = errors.Join(err, os.Remove(in.spool))
	}
	return err
}

// read returns the uncompressed bytes from the start. passed is told how many
// bytes of the file were read.
func (in *input) read(ctx context.Context, passed func(int64)) (io.ReadCloser, error) {
	return uncompressed(&watched{ctx: ctx, in: io.NewSectionReader(in.file, 0, in.size), passed: passed})
}

// uncompressed returns the uncompressed bytes of a stream. Whether they are
// compressed is seen from the first of them: no text begins like that.
func uncompressed(stream io.Reader) (io.ReadCloser, error) {
	raw := bufio.NewReaderSize(stream, 256<<10)
	magic, err := raw.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(raw)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err := zstd.NewReader(raw, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return r.IOReadCloser(), nil
	}
	return io.NopCloser(raw), nil
}

// maxWindow bounds what decompression keeps in memory: the largest window that
// zstd itself takes without being asked to.
const maxWindow = 128 << 20

// fingerprint is what was read, once: the content's SHA-256, and a hash by
// which this process recognises the same bytes with less work.
type fingerprint struct {
	content batch.Digest
	quick   maphash.Hash
}

// digest reads the uncompressed bytes and returns their fingerprint.
func (in *input) digest(ctx context.Context, seed maphash.Seed, passed func(int64)) (*fingerprint, error) {
	r, err := in.read(ctx, passed)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	f := &fingerprint{}
	f.quick.SetSeed(seed)
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(h, &f.quick), r); err != nil {
		return nil, err
	}
	h.Sum(f.content[:0])
	return f, nil
}

// watched is a reader that ends with its context and tells how far it came.
type watched struct {
	ctx    context.Context // of the one pass that it is made for
	in     io.Reader
	passed func(int64)
	done   int64
}

func (w *watched) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.in.Read(p)
	w.done += int64(n)
	w.passed(w.done)
	return n, err
}
