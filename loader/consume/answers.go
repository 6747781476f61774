package consume

import (
	"fmt"
	"io"

	"github.com/segmentio/kafka-go/protocol"
)

// Answers about a topic, read here because the library makes arrays as long as
// the bytes claim: one flipped bit ends the process for want of memory. The
// formats are those of https://kafka.apache.org/protocol.html.

// The versions that are read; every broker with the fetch versions has them.
const (
	minMetadata, maxMetadata       = 7, 8
	minListOffsets, maxListOffsets = 4, 5
)

// checkVersion returns an error unless an answer's version is one that is read.
func checkVersion(what string, version, least, most int16) error {
	if version < least || version > most {
		return fmt.Errorf("%s version %d, need %d to %d", what, version, least, most)
	}
	return nil
}

// topicAnswer is what an answer to a metadata request says about its one topic.
type topicAnswer struct {
	topic   string
	code    int16
	leaders map[int32]leader
}

// ApiKey makes a topicAnswer a protocol.Message.
func (*topicAnswer) ApiKey() protocol.ApiKey { return protocol.Metadata } //nolint:staticcheck // the library's interface spells it so

// readTopic decodes the answer to a metadata request for one topic.
func readTopic(r io.Reader, version int16) (protocol.Message, error) {
	if err := checkVersion("metadata", version, minMetadata, maxMetadata); err != nil {
		return nil, err
	}
	f := newFrame(r, correlation)
	f.int32()               // throttle time
	for range f.count(12) { // brokers
		f.int32()
		f.string()
		f.int32()
		f.string()
	}
	f.string() // cluster id
	f.int32()  // controller
	a := &topicAnswer{leaders: map[int32]leader{}}
	if n := f.count(9); n != 1 {
		f.fail("metadata of %d topics", n)
	}
	a.code = f.int16()
	a.topic = f.string()
	f.skip(1) // whether it is internal
	for range f.count(26) {
		f.int16() // of the partition: without a leader it is -1 too
		number := f.int32()
		a.leaders[number] = leader{broker: f.int32(), epoch: f.int32()}
		for range 3 { // replicas, those in sync, those offline
			f.skip(4 * int64(f.count(4)))
		}
		if f.err != nil {
			break
		}
	}
	f.skip(f.left)
	if f.err != nil {
		return nil, f.err
	}
	return a, nil
}

// offsetAnswer is what an answer to a request for offsets says about its one partition.
type offsetAnswer struct {
	topic     string
	partition int32
	code      int16
	offset    int64
}

// ApiKey makes an offsetAnswer a protocol.Message.
func (*offsetAnswer) ApiKey() protocol.ApiKey { return protocol.ListOffsets } //nolint:staticcheck // the library's interface spells it so

// readOffset decodes the answer to a request for one partition's offset.
func readOffset(r io.Reader, version int16) (protocol.Message, error) {
	if err := checkVersion("offsets", version, minListOffsets, maxListOffsets); err != nil {
		return nil, err
	}
	f := newFrame(r, correlation)
	f.int32() // throttle time
	a := new(offsetAnswer)
	if n := f.count(6); n != 1 {
		f.fail("offsets of %d topics", n)
	}
	a.topic = f.string()
	if n := f.count(26); n != 1 {
		f.fail("offsets of %d partitions", n)
	}
	a.partition = f.int32()
	a.code = f.int16()
	f.int64() // a timestamp
	a.offset = f.int64()
	f.skip(f.left)
	if f.err != nil {
		return nil, f.err
	}
	return a, nil
}
