package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"tallyman/internal/kafkaconn"
	"tallyman/schema/batch"
)

// message is one record of the receipts' topic.
type message struct {
	partition  int32
	key, value []byte
	headers    []batch.Header
}

// topicReader reads a small, compacted topic from its start, all partitions, and
// then what comes. It is in no group and commits nothing. It takes nothing for
// granted: after any failure a partition is read from its start again, and all
// of them once an hour, which costs little and finds what a topic that was made
// anew holds.
type topicReader struct {
	conn  *kafkaconn.Conn
	topic string
	began time.Time       // to read from the start
	next  map[int32]int64 // where each partition goes on
	empty map[int32]int   // answers in a row without a record where there should be one
}

const (
	fetchBytes   = 1 << 20
	fetchWait    = 50 * time.Millisecond
	fetchTimeout = 10 * time.Second
	readAgain    = time.Hour
	// patience is how many answers without a record are believed to be a passing thing.
	patience = 3
)

// poll reads what is new. It returns whether all of the topic is read; false
// without an error: there is no topic.
func (t *topicReader) poll(ctx context.Context, take func(message)) (bool, error) {
	topics, err := t.conn.Topics(ctx, t.topic)
	if err != nil {
		clear(t.next)
		return false, err
	}
	known, ok := topics[t.topic]
	if !ok {
		clear(t.next)
		return false, nil
	}
	if time.Since(t.began) > readAgain {
		clear(t.next)
		t.began = time.Now()
	}
	var failed error
	for _, p := range known.Partitions() {
		if err := t.partition(ctx, p, take); err != nil {
			delete(t.next, p)
			failed = errors.Join(failed, fmt.Errorf("read partition %d of %s: %w", p, t.topic, err))
		}
	}
	return failed == nil, failed
}

// partition reads one partition to its end.
func (t *topicReader) partition(ctx context.Context, p int32, take func(message)) error {
	for {
		next, ok := t.next[p]
		if !ok {
			next = kafka.FirstOffset
		}
		end, read, err := t.fetch(ctx, p, next, take)
		switch {
		case err != nil: // perhaps the log was cut, or is another one
			return err
		case read > next:
			t.next[p], t.empty[p] = read, 0
		case next < 0: // an empty log
			t.next[p] = end
		case next < end:
			// A record batch that compaction has emptied has no record to step over.
			if t.empty[p]++; t.empty[p] < patience {
				return nil
			}
			t.next[p], t.empty[p] = next+1, 0
		}
		if at, known := t.next[p]; known && at >= end {
			return nil
		}
	}
}

// fetch reads one answer, and returns the partition's end and where to go on.
func (t *topicReader) fetch(ctx context.Context, p int32, from int64, take func(message)) (end, next int64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, fmt.Errorf("no answer in %v", fetchTimeout))
	defer cancel()
	answer, err := t.conn.Client().Fetch(ctx, &kafka.FetchRequest{
		Topic: t.topic, Partition: int(p), Offset: from, MinBytes: 1, MaxBytes: fetchBytes, MaxWait: fetchWait,
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, from, err
	}
	if answer.Error != nil {
		return 0, from, answer.Error
	}
	next = from
	for {
		record, err := answer.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return answer.HighWatermark, next, nil
		}
		if err != nil {
			return 0, from, err
		}
		m, err := read(record)
		if err != nil {
			return 0, from, err
		}
		if record.Offset < from { // a broker sends whole record batches
			continue
		}
		m.partition, next = p, record.Offset+1
		take(m)
	}
}

// read takes a record's bytes out of the answer's memory.
func read(record *kafka.Record) (m message, err error) {
	if m.key, err = protocol.ReadAll(record.Key); err != nil {
		return m, err
	}
	if m.value, err = protocol.ReadAll(record.Value); err != nil {
		return m, err
	}
	for _, h := range record.Headers {
		m.headers = append(m.headers, batch.Header{Key: h.Key, Value: h.Value})
	}
	return m, nil
}
