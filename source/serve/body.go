package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"
)

// lease is the memory that one request holds of what all share.
type lease struct {
	of   *semaphore.Weighted
	held int64
}

// add makes the lease larger. It never waits.
func (l *lease) add(n int64) error {
	if n <= 0 {
		return nil
	}
	if !l.of.TryAcquire(n) {
		return newProblem(busy, "the requests under way hold all the memory that there is for them").after(shortly)
	}
	l.held += n
	return nil
}

// sub gives some of it back.
func (l *lease) sub(n int64) {
	l.of.Release(n)
	l.held -= n
}

// free gives all of it back.
func (l *lease) free() { l.sub(l.held) }

// readBody returns the body, decompressed.
func (d *Daemon) readBody(w http.ResponseWriter, r *http.Request, held *lease) ([]byte, error) {
	if r.ContentLength > d.cfg.MaxBody {
		return nil, d.bodyTooLarge()
	}
	encoding := strings.ToLower(strings.TrimSpace(strings.Join(r.Header.Values("Content-Encoding"), ",")))
	open, known := d.decoders.of(encoding)
	if !known {
		return nil, newProblem(badEncoding, "Content-Encoding may be gzip or zstd, one of them").with("Accept-Encoding", "gzip, zstd")
	}
	body, err := d.readAll(http.MaxBytesReader(w, r.Body, d.cfg.MaxBody), r.ContentLength, held)
	if err != nil || open == nil {
		return body, err
	}
	return d.decompress(r.Context(), open, body, held)
}

// firstRead is how much memory a text is given at first, unless it is known how
// long it is.
const firstRead = 16 << 10

// readAll reads a text of size bytes; -1: it is not known how many.
func (d *Daemon) readAll(in io.Reader, size int64, held *lease) ([]byte, error) {
	room := int64(firstRead)
	if size >= 0 {
		room = size + 1 // to see the end without growing
	}
	if err := held.add(room); err != nil {
		return nil, err
	}
	text := make([]byte, 0, room)
	for {
		n, err := in.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case int64(len(text)) > d.cfg.MaxBody:
			return nil, d.bodyTooLarge()
		case errors.Is(err, io.EOF):
			return text, nil
		case err != nil:
			return nil, d.readProblem(err)
		case len(text) == cap(text):
			more := min(2*room, d.cfg.MaxBody+1)
			if err := held.add(more); err != nil {
				return nil, err
			}
			text = append(make([]byte, 0, more), text...)
			held.sub(room)
			room = more
		}
	}
}

// decompress returns what a body was before it was encoded. Decoders keep
// windows of megabytes, so only as many work at the same time as there are
// processors; they wait for nothing else, since the body is there.
func (d *Daemon) decompress(ctx context.Context, open opener, body []byte, held *lease) ([]byte, error) {
	if d.decoding.Acquire(ctx, 1) != nil {
		return nil, newProblem(busy, "the body was not decompressed in time").after(shortly)
	}
	defer d.decoding.Release(1)
	in, done, err := open(bytes.NewReader(body))
	if err != nil {
		return nil, d.readProblem(err)
	}
	defer done()
	text, err := d.readAll(in, -1, held)
	held.sub(int64(cap(body)))
	return text, err
}

func (d *Daemon) bodyTooLarge() *problem {
	return newProblem(tooLarge, "a body may have %d bytes, decompressed too: send it in parts", d.cfg.MaxBody).over(d.cfg.MaxBody)
}

// readProblem says why a body could not be read.
func (d *Daemon) readProblem(err error) *problem {
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return d.bodyTooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return newProblem(slowRequest, "the body did not come within %v", d.cfg.ReadTimeout).with("Connection", "close")
	default:
		return newProblem(badBody, "read the body: %v", err)
	}
}

// opener opens an encoded text. done is called after it was read.
type opener func(in io.Reader) (text io.Reader, done func(), err error)

// decoders are decompressors that wait for their next body.
type decoders struct {
	limit      int64 // bytes of a text
	gzip, zstd sync.Pool
}

// of returns what opens an encoding; nil: nothing has to be opened.
func (d *decoders) of(encoding string) (open opener, known bool) {
	switch encoding {
	case "", "identity":
		return nil, true
	case "gzip", "x-gzip":
		return d.gunzip, true
	case "zstd":
		return d.unzstd, true
	}
	return nil, false
}

func (d *decoders) gunzip(in io.Reader) (io.Reader, func(), error) {
	z, ok := d.gzip.Get().(*gzip.Reader)
	if !ok {
		z = &gzip.Reader{}
	}
	if err := z.Reset(in); err != nil {
		d.gzip.Put(z)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // it is no end, but an empty body
		}
		return nil, nil, err
	}
	return z, func() { d.gzip.Put(z) }, nil
}

// maxWindow bounds what a decoder of zstd keeps: what RFC 8878 wants every
// decoder to support.
const maxWindow = 8 << 20

func (d *decoders) unzstd(in io.Reader) (io.Reader, func(), error) {
	z, ok := d.zstd.Get().(*zstd.Decoder)
	if !ok {
		var err error
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(uint64(max(d.limit, maxWindow))))
		if err != nil {
			return nil, nil, err
		}
	}
	done := func() {
		_ = z.Reset(nil) // lets go of the body
		d.zstd.Put(z)
	}
	if err := z.Reset(in); err != nil {
		done()
		return nil, nil, err
	}
	return z, done, nil
}
