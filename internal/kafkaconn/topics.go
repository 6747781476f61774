package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/segmentio/kafka-go"
)

// ErrNoTopic is returned when a topic does not exist.
var ErrNoTopic = errors.New("the topic does not exist")

// ErrTopicExists is returned by CreateTopic when there is one of that name.
var ErrTopicExists = errors.New("the topic exists")

// Topic is what the cluster says about a topic.
type Topic struct {
	// Name is the topic's name.
	Name string
	// Leaders has the broker id of each partition's leader, -1 where there is none.
	Leaders map[int32]int
	// Replicas is the replication factor of partition 0.
	Replicas int
}

// Partitions returns the partition numbers in order.
func (t Topic) Partitions() []int32 { return slices.Sorted(maps.Keys(t.Leaders)) }

// Topics returns those of the named topics that exist, by name; without names,
// all but Kafka's internal ones. A topic made less than MetadataTTL ago by
// somebody else may be missing.
func (c *Conn) Topics(ctx context.Context, names ...string) (map[string]Topic, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	answer, err := c.Client().Metadata(ctx, &kafka.MetadataRequest{Topics: names})
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", c.reason(ctx, err))
	}
	topics := map[string]Topic{}
	for _, t := range answer.Topics {
		if errors.Is(t.Error, kafka.UnknownTopicOrPartition) || t.Internal && len(names) == 0 {
			continue
		}
		if t.Error != nil {
			return nil, fmt.Errorf("list topics: %s: %w", t.Name, t.Error)
		}
		topic := Topic{Name: t.Name, Leaders: map[int32]int{}}
		for _, p := range t.Partitions {
			topic.Leaders[int32(p.ID)] = p.Leader.ID
			if p.Leader.Host == "" { // kafka-go answers with a zero Broker where the leader is unknown
				topic.Leaders[int32(p.ID)] = -1
			}
			if p.ID == 0 {
				topic.Replicas = len(p.Replicas)
			}
		}
		topics[t.Name] = topic
	}
	return topics, nil
}

// NewTopic describes a topic to create.
type NewTopic struct {
	// Name is the topic's name.
	Name string
	// Partitions is their number. Defaults to the broker's default.
	Partitions int
	// Replication is the replication factor. Defaults to the broker's default.
	Replication int
	// Configs are topic settings such as retention.ms. Defaults to the broker's own.
	Configs map[string]string
}

// CreateTopic makes a topic, or returns an error for which errors.Is with
// ErrTopicExists holds.
func (c *Conn) CreateTopic(ctx context.Context, t NewTopic) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	topic := kafka.TopicConfig{Topic: t.Name, NumPartitions: -1, ReplicationFactor: -1}
	if t.Partitions > 0 {
		topic.NumPartitions = t.Partitions
	}
	if t.Replication > 0 {
		topic.ReplicationFactor = t.Replication
	}
	for _, name := range slices.Sorted(maps.Keys(t.Configs)) {
		topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: t.Configs[name]})
	}
	answer, err := c.Client().CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err == nil {
		err = answer.Errors[t.Name]
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kafka.TopicAlreadyExists):
		err = ErrTopicExists
	default:
		err = c.reason(ctx, err)
	}
	return fmt.Errorf("create topic %s: %w", t.Name, err)
}

// TopicConfig holds the settings of a topic that matter to Tallyman.
type TopicConfig struct {
	// CleanupPolicy is "delete", "compact" or "compact,delete".
	CleanupPolicy string
	// MaxMessageBytes is the largest record batch that the topic takes, after compression.
	MaxMessageBytes int
	// RetentionMs is how long records are kept, in milliseconds; -1 for ever.
	RetentionMs int64
}

// TopicConfig asks for a topic's settings. The error is ErrNoTopic if there is
// no such topic.
func (c *Conn) TopicConfig(ctx context.Context, topic string) (TopicConfig, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	answer, err := c.Client().DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic,
			ResourceName: topic,
			ConfigNames:  []string{"cleanup.policy", "max.message.bytes", "retention.ms"},
		}},
	})
	if err != nil {
		return TopicConfig{}, fmt.Errorf("ask for the settings of topic %s: %w", topic, c.reason(ctx, err))
	}
	var config TopicConfig
	for _, resource := range answer.Resources {
		if resource.Error != nil {
			return TopicConfig{}, fmt.Errorf("ask for the settings of topic %s: %w", topic, known(resource.Error))
		}
		for _, entry := range resource.ConfigEntries {
			if err := config.set(entry.ConfigName, entry.ConfigValue); err != nil {
				return TopicConfig{}, fmt.Errorf("settings of topic %s: %s: %w", topic, entry.ConfigName, err)
			}
		}
	}
	return config, nil
}

func (c *TopicConfig) set(name, value string) (err error) {
	switch name {
	case "cleanup.policy":
		c.CleanupPolicy = value
	case "max.message.bytes":
		c.MaxMessageBytes, err = strconv.Atoi(value)
	case "retention.ms":
		c.RetentionMs, err = strconv.ParseInt(value, 10, 64)
	}
	return err
}

// known puts our error in the place of kafka-go's where there is one.
func known(err error) error {
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		return ErrNoTopic
	}
	return err
}

// LogStarts returns the first offset that each partition still has.
func (c *Conn) LogStarts(ctx context.Context, topic string) (map[int32]int64, error) {
	offsets, err := c.offsets(ctx, topic, kafka.FirstOffsetOf, func(p kafka.PartitionOffsets) int64 { return p.FirstOffset })
	if err != nil {
		return nil, fmt.Errorf("find the log starts of topic %s: %w", topic, err)
	}
	return offsets, nil
}

// HighWaters returns the offset that each partition's next record will have,
// open transactions included.
func (c *Conn) HighWaters(ctx context.Context, topic string) (map[int32]int64, error) {
	offsets, err := c.offsets(ctx, topic, kafka.LastOffsetOf, func(p kafka.PartitionOffsets) int64 { return p.LastOffset })
	if err != nil {
		return nil, fmt.Errorf("find the high watermarks of topic %s: %w", topic, err)
	}
	return offsets, nil
}

// offsets asks the leaders for one offset of each partition. kafka-go keeps
// first and last apart by the request, so each is asked for alone.
func (c *Conn) offsets(ctx context.Context, topic string, ask func(partition int) kafka.OffsetRequest, pick func(kafka.PartitionOffsets) int64) (map[int32]int64, error) {
	topics, err := c.Topics(ctx, topic)
	if err != nil {
		return nil, err
	}
	known, ok := topics[topic]
	if !ok {
		return nil, ErrNoTopic
	}
	var requests []kafka.OffsetRequest
	for _, partition := range known.Partitions() {
		requests = append(requests, ask(int(partition)))
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	answer, err := c.Client().ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: requests}})
	if err != nil {
		return nil, c.reason(ctx, err)
	}
	offsets := map[int32]int64{}
	for _, p := range answer.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("partition %d: %w", p.Partition, p.Error)
		}
		offsets[int32(p.Partition)] = pick(p)
	}
	return offsets, nil
}
