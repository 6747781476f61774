package consume

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
)

// scratchSize is the memory that an inflater keeps to decompress into. What
// needs more gets memory of its own, one such batch at a time.
const scratchSize = 2 << 20

// zstd appends a block at a time and notices a limit once it is passed: without
// room for the last one, a slice at the limit would be copied to a larger one.
const (
	zstdBlock  = 128 << 10
	zstdWindow = 8 << 20 // what any encoder may use and every decoder has to take
)

// errTooLarge is the error for content over the limit.
var errTooLarge = errors.New("over the limit when decompressed")

// inflaters are shared by everybody who decompresses: as many as can work at
// the same time, so that their memory does not grow with the partitions.
type inflaters struct {
	limit  int64
	budget *budget
	idle   chan *inflater
	large  chan struct{} // held by whoever decompresses beyond the scratch
}

func newInflaters(n int, limit int64, b *budget) (*inflaters, error) {
	s := &inflaters{limit: limit, budget: b, idle: make(chan *inflater, n), large: make(chan struct{}, 1)}
	for range n {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(uint64(max(limit, zstdWindow))))
		if err != nil {
			return nil, fmt.Errorf("make zstd decoder: %w", err)
		}
		s.idle <- &inflater{zstd: d}
	}
	return s, nil
}

// inflated is what became of a record batch's records.
type inflated struct {
	data []byte
	// taken is what was taken of the budget for data, which the caller gives
	// back or passes on. Zero: data lies in memory that is valid only during the
	// call, or that was there before.
	taken int64
}

// inflate decompresses the records of b and has use look at them. Its error is
// errTooLarge, an error that means the bytes, or that of ctx or of use.
func (s *inflaters) inflate(ctx context.Context, b *rawBatch, use func(inflated) error) error {
	if b.compression() == 0 {
		return use(inflated{data: b.records})
	}
	var i *inflater
	select {
	case i = <-s.idle:
		defer func() { s.idle <- i }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if i.scratch == nil {
		i.scratch = make([]byte, 0, min(scratchSize, s.limit))
	}
	data, err := i.safely(i.scratch, b)
	if err == nil {
		return use(inflated{data: data})
	}
	if !errors.Is(err, errTooLarge) || s.limit <= scratchSize {
		return err
	}
	big, err := s.inflateLarge(ctx, i, b)
	if err != nil {
		return err
	}
	return use(big)
}

// inflateLarge decompresses into memory of its own, which grows fourfold until
// the content fits or the limit is reached, each time charged to the budget
// before it is there.
func (s *inflaters) inflateLarge(ctx context.Context, i *inflater, b *rawBatch) (inflated, error) {
	select {
	case s.large <- struct{}{}:
		defer func() { <-s.large }()
	case <-ctx.Done():
		return inflated{}, ctx.Err()
	}
	for size := int64(scratchSize); size < s.limit; {
		size = min(4*size, s.limit)
		taken, err := s.budget.acquire(ctx, size)
		if err != nil {
			return inflated{}, err
		}
		data, err := i.safely(make([]byte, 0, size+zstdBlock), b)
		if int64(len(data)) > s.limit {
			data, err = nil, errTooLarge
		}
		if err == nil {
			if int64(len(data)) < size/2 {
				data = bytes.Clone(data)
			}
			needed := min(taken, int64(cap(data)))
			s.budget.giveBack(taken - needed)
			return inflated{data: data, taken: needed}, nil
		}
		s.budget.giveBack(taken)
		if !errors.Is(err, errTooLarge) {
			return inflated{}, err
		}
	}
	return inflated{}, errTooLarge
}

// inflater decompresses one record batch at a time.
type inflater struct {
	scratch []byte
	zstd    *zstd.Decoder
}

// safely decompresses into dst's spare capacity. A panic of a library is an
// error, because the bytes come from anybody.
func (i *inflater) safely(dst []byte, b *rawBatch) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			data, err = nil, fmt.Errorf("decompress: %v", p)
		}
	}()
	return i.into(dst, b)
}

// into decompresses into dst's spare capacity, and into nothing else.
func (i *inflater) into(dst []byte, b *rawBatch) ([]byte, error) {
	switch compress.Compression(b.compression()) {
	case compress.Zstd:
		out, err := i.zstd.DecodeAll(b.records, dst)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
			return nil, errTooLarge
		}
		return out, err
	case compress.Snappy:
		return unsnappy(dst, b.records)
	case compress.Gzip, compress.Lz4:
		r := compress.Compression(b.compression()).Codec().NewReader(bytes.NewReader(b.records))
		defer r.Close()
		return readInto(dst, r)
	default:
		return nil, fmt.Errorf("unknown compression %d", b.compression())
	}
}

// readInto reads r to its end into dst's spare capacity.
func readInto(dst []byte, r io.Reader) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			var one [1]byte
			n, err := io.ReadFull(r, one[:])
			if n > 0 {
				return nil, errTooLarge
			}
			if err == io.EOF {
				return dst, nil
			}
			return nil, err
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// xerial starts the framing that Java's snappy puts around its blocks: eight
// bytes of magic, then two version numbers of four bytes each.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func unsnappy(dst, src []byte) ([]byte, error) {
	if len(src) < 16 || !bytes.HasPrefix(src, xerial) {
		return unsnap(dst, src)
	}
	for src = src[16:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(src))
		if src = src[4:]; n > int64(len(src)) {
			return nil, io.ErrUnexpectedEOF
		}
		var err error
		if dst, err = unsnap(dst, src[:n]); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	return dst, nil
}

// unsnap appends one block of snappy to dst.
func unsnap(dst, block []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if n > cap(dst)-len(dst) {
		return nil, errTooLarge
	}
	out, err := snappy.Decode(dst[len(dst):len(dst)+n], block)
	if err != nil {
		return nil, err
	}
	return dst[:len(dst)+len(out)], nil
}
