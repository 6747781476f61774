package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// need is an API that Tallyman calls through kafka-go, and the versions of it
// that kafka-go can speak where Tallyman calls it.
type need struct {
	key      protocol.ApiKey
	min, max int
	what     string // what it is needed for
}

// needs returns every API in use. Requests through the transport pick the
// newest version that both sides speak; the consumer group's own requests have
// fixed versions. Answers to a fetch are decoded by package consume, which knows
// versions 10 (Kafka 2.1, the first with zstd) and 11.
func needs() []need {
	through := func(key protocol.ApiKey, what string) need {
		return need{key: key, min: int(key.MinVersion()), max: int(key.MaxVersion()), what: what}
	}
	fetch := through(protocol.Fetch, "read records")
	fetch.min, fetch.max = 10, 11
	return []need{
		through(protocol.Produce, "publish batches"),
		fetch,
		through(protocol.ListOffsets, "find the ends of a partition"),
		through(protocol.Metadata, "find the leaders"),
		through(protocol.CreateTopics, "create topics"),
		through(protocol.DescribeConfigs, "check a topic's settings"),
		{protocol.FindCoordinator, 0, 0, "join a consumer group"},
		{protocol.JoinGroup, 1, 2, "join a consumer group"},
		{protocol.SyncGroup, 0, 0, "join a consumer group"},
		{protocol.Heartbeat, 0, 0, "stay in a consumer group"},
		{protocol.LeaveGroup, 0, 0, "leave a consumer group"},
		{protocol.OffsetCommit, 2, 2, "commit offsets for lag tools"},
		{protocol.OffsetFetch, 1, 1, "start a consumer group"},
	}
}

// MissingAPIError names what a broker can't do that Tallyman needs.
type MissingAPIError struct {
	// Broker is the address that was asked.
	Broker string
	// Missing has a line for each API: its name, what it is needed for and the
	// versions on both sides.
	Missing []string
}

// Error implements error.
func (e *MissingAPIError) Error() string {
	return fmt.Sprintf("Kafka broker %s is too old or too new: %s", e.Broker, strings.Join(e.Missing, "; "))
}

// APICheck asks a broker which requests it answers and returns a
// *MissingAPIError if one that Tallyman needs is not among them. Without it, a
// broker that is too new closes the connection without a word.
func (c *Conn) APICheck(ctx context.Context) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	answer, err := c.Client().ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		return fmt.Errorf("ask Kafka (%s) for its API versions: %w", c.addr, c.reason(ctx, err))
	}
	offered := map[int]kafka.ApiVersionsResponseApiKey{}
	for _, api := range answer.ApiKeys {
		offered[api.ApiKey] = api
	}
	var missing []string
	for _, n := range needs() {
		has, ok := offered[int(n.key)]
		switch {
		case !ok:
			missing = append(missing, fmt.Sprintf("%s (to %s) is not offered", n.key, n.what))
		case has.MaxVersion < n.min || has.MinVersion > n.max:
			missing = append(missing, fmt.Sprintf("%s (to %s) is offered in versions %d to %d, needed in one of %d to %d",
				n.key, n.what, has.MinVersion, has.MaxVersion, n.min, n.max))
		}
	}
	if missing != nil {
		return &MissingAPIError{Broker: c.addr.String(), Missing: missing}
	}
	return nil
}

// reason returns the context's own cause where err is only its end, and says
// what to change where the broker refused this client.
func (c *Conn) reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, kafka.BrokerNotAvailable) {
		// The transport knows no broker to send the request to, and why not: it
		// answers a question for metadata with that.
		if _, cause := c.Client().Metadata(ctx, &kafka.MetadataRequest{}); cause != nil {
			err = cause
		}
	}
	return c.explain(err)
}
