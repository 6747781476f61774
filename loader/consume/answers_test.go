package consume

import (
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// written returns an answer as the library writes it.
func written(t testing.TB, version int16, m protocol.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := protocol.WriteResponse(&b, version, correlation, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// anAnswer is an answer, how it is read, and what it says.
type anAnswer struct {
	name  string
	bytes []byte
	read  func(io.Reader, int16) (protocol.Message, error)
	want  protocol.Message
}

// someAnswers returns answers in a version, counted from the least that is read.
func someAnswers(t testing.TB, above int16) []anAnswer {
	return []anAnswer{
		{"metadata", written(t, minMetadata+above, &metadata.Response{
			ThrottleTimeMs: 1, ClusterID: "c", ControllerID: 1,
			Brokers: []metadata.ResponseBroker{{NodeID: 1, Host: "a", Port: 2}, {NodeID: 3, Host: "b", Port: 4, Rack: "r"}},
			Topics: []metadata.ResponseTopic{{Name: topic, ErrorCode: 5, Partitions: []metadata.ResponsePartition{
				{PartitionIndex: 0, LeaderID: 1, LeaderEpoch: 7, ReplicaNodes: []int32{1, 3}, IsrNodes: []int32{1}},
				{PartitionIndex: 1, LeaderID: -1, LeaderEpoch: 8, ErrorCode: 5, OfflineReplicas: []int32{3}},
			}}},
		}), readTopic, &topicAnswer{topic: topic, code: 5, leaders: map[int32]leader{0: {1, 7}, 1: {-1, 8}}}},
		{"offsets", written(t, minListOffsets+above, &listoffsets.Response{
			ThrottleTimeMs: 1,
			Topics: []listoffsets.ResponseTopic{{Topic: topic, Partitions: []listoffsets.ResponsePartition{
				{Partition: 2, ErrorCode: 3, Timestamp: 4, Offset: 5, LeaderEpoch: 6},
			}}},
		}), readOffset, &offsetAnswer{topic: topic, partition: 2, code: 3, offset: 5}},
	}
}

// versionOf returns the version of an answer so much above the least one.
func (a anAnswer) versionOf(above int16) int16 {
	if a.name == "metadata" {
		return minMetadata + above
	}
	return minListOffsets + above
}

// TestAnswers reads what the library writes, in each version.
func TestAnswers(t *testing.T) {
	for above := range int16(2) {
		for _, a := range someAnswers(t, above) {
			got, err := a.read(bytes.NewReader(a.bytes), a.versionOf(above))
			if err != nil {
				t.Errorf("%s version %d: %v", a.name, a.versionOf(above), err)
			}
			if diff := cmp.Diff(a.want, got, cmp.AllowUnexported(topicAnswer{}, offsetAnswer{}, leader{})); diff != "" {
				t.Errorf("%s version %d (-want +got):\n%s", a.name, a.versionOf(above), diff)
			}
			if _, err := a.read(bytes.NewReader(a.bytes), a.versionOf(2)); err == nil {
				t.Errorf("%s: version %d was read", a.name, a.versionOf(2))
			}
		}
	}
}

// TestAnswersThatLie sees no flipped bit and no claim of a length taken for
// memory: one answer had asked for 40 GB.
func TestAnswersThatLie(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, a := range someAnswers(t, 1) {
		for bit := 32; bit < 8*len(a.bytes); bit++ {
			b := bytes.Clone(a.bytes)
			b[bit/8] ^= 1 << (bit % 8)
			_, _ = a.read(bytes.NewReader(b), a.versionOf(1))
		}
		for i := 4; i+4 <= len(a.bytes); i++ {
			b := bytes.Clone(a.bytes)
			binary.BigEndian.PutUint32(b[i:], 1<<30)
			_, _ = a.read(bytes.NewReader(b), a.versionOf(1))
		}
		for n := range len(a.bytes) {
			if _, err := a.read(bytes.NewReader(a.bytes[:n]), a.versionOf(1)); err == nil {
				t.Errorf("%s: %d bytes of %d were enough", a.name, n, len(a.bytes))
			}
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}
