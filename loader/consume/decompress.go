package consume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
)

// scratchSize is the memory that a flow keeps to decompress into. What needs
// more gets memory of its own, one such batch at a time in the whole process
// of a consumer.
const scratchSize = 4 << 20

// errTooLarge is the error for content over the limit.
var errTooLarge = errors.New("over the limit when decompressed")

// inflater decompresses record batches, none beyond a limit.
type inflater struct {
	limit   int64
	large   chan struct{} // held by whoever decompresses beyond the scratch
	scratch []byte
	small   *zstd.Decoder
}

func newInflater(limit int64, large chan struct{}) (*inflater, error) {
	d, err := zstdDecoder()
	if err != nil {
		return nil, err
	}
	return &inflater{limit: limit, large: large, small: d}, nil
}

// zstdDecoder returns a decoder that fills what memory it is given and takes no more.
func zstdDecoder() (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return d, nil
}

func (i *inflater) close() { i.small.Close() }

// inflate returns the decompressed records of b: in the scratch, which the next
// call overwrites, or in memory of their own (own is true). A panic of a
// library is an error, because the bytes come from anybody.
func (i *inflater) inflate(b *rawBatch) (data []byte, own bool, err error) {
	if b.compression() == 0 {
		return b.records, true, nil
	}
	defer func() {
		if p := recover(); p != nil {
			data, own, err = nil, false, fmt.Errorf("decompress: %v", p)
		}
	}()
	if i.scratch == nil {
		i.scratch = make([]byte, 0, min(scratchSize, i.limit))
	}
	data, err = i.into(i.scratch[:0], b)
	if !errors.Is(err, errTooLarge) || i.limit <= scratchSize {
		return data, false, err
	}
	i.large <- struct{}{}
	defer func() { <-i.large }()
	// Memory fresh from the system is not touched before it is written.
	data, err = i.into(make([]byte, 0, i.limit), b)
	if err != nil {
		return nil, false, err
	}
	if int64(len(data)) < i.limit/2 {
		data = bytes.Clone(data)
	}
	return data, true, nil
}

// into decompresses into dst's spare capacity, and into nothing else.
func (i *inflater) into(dst []byte, b *rawBatch) ([]byte, error) {
	switch compress.Compression(b.compression()) {
	case compress.Zstd:
		out, err := i.small.DecodeAll(b.records, dst)
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
