package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/kafkaconn"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/ddl"
	"tallyman/sink/postgres"
)

// topicShape is how a dataset's topic is made; 0 leaves it to the broker.
type topicShape struct {
	partitions  uint32
	replication uint16
	dryRun      bool // nothing is made
}

func newDatasetApply(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply MANIFEST...",
		Short: "Make the tables and topics of datasets, by their manifests",
		Long: `Make the tables and topics of datasets, by their manifests.

A manifest is YAML: the dataset's name, its columns with their types, and, where the defaults
don't fit, topic and table. Readers use the view of that name; the rows are in a table behind it.
Applying the same manifest again changes nothing. If you may not create topics, the commands for
somebody who may are printed. The topic tallyman.receipts is for all datasets of the cluster:
on it loaders tell sources what is loaded and what is missing.

A manifest that only adds nullable columns to the one before is applied while loaders load: the
table and the view get the columns, and batches by the old manifest and by the new one load side
by side. The order of the columns is free. Any other difference is refused, and nothing is changed.

A table that is made can have partitions: table: {partition: {by: at, every: month}}, or day
or year, by a required column of dates or timestamps that every key of the table contains.
They are made ahead, from then on by tallyman init; rows of other times go to one for the rest.

To load into a table that is there, say existing: true in the manifest's table. It is used as it
is: no view, no _batch_id, no column added; a column or a table that can't take the rows is refused.`,
		Example: `  tallyman dataset apply conversions.yaml
  tallyman dataset apply conversions.yaml --dry-run
  tallyman dataset apply *.yaml --partitions 12 --replication-factor 3`,
		Args: cobra.MinimumNArgs(1),
	}
	var shape topicShape
	cmd.Flags().Uint32Var(&shape.partitions, "partitions", 0, "partitions of a topic that is made (`count`; default the broker's)")
	cmd.Flags().Uint16Var(&shape.replication, "replication-factor", 0, "replicas of a topic that is made (`count`; default the broker's)")
	cmd.Flags().BoolVar(&shape.dryRun, "dry-run", false, "say what would be done or refused, and do nothing")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse", "kafka")
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		manifests, err := readEach(files)
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		cfg, err := p.settings(cmd, settings.Warehouse|settings.Kafka)
		if err != nil {
			return err
		}
		w, err := p.warehouse(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		defer w.Close()
		conn, err := p.kafka(cfg)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := checkTarget(cmd.Context(), w, cfg.WarehouseTarget); err != nil {
			return err
		}
		if err := conn.APICheck(cmd.Context()); err != nil {
			return err
		}
		results := []appliedDataset{}
		var failed error
		for _, m := range manifests {
			result, err := p.applyOne(cmd.Context(), w, conn, m, shape)
			if err != nil {
				result.Error = err.Error()
			}
			results = append(results, result)
			if err == nil && *output == asTable {
				err = result.print(p)
			}
			if failed = err; failed != nil {
				break
			}
		}
		if *output == asJSON {
			return errors.Join(failed, printJSON(p.stdout, results))
		}
		return failed
	}
	return cmd
}

// appliedDataset says what became of one manifest.
type appliedDataset struct {
	Dataset string `json:"dataset"`
	Hash    string `json:"manifest_hash"`
	Table   string `json:"table"`
	Topic   string `json:"topic"`
	Created bool   `json:"created"`
	// Widened is true for a further manifest of a dataset that was there.
	Widened bool `json:"widened"`
	// Existing is true for a table that was not made from here.
	Existing bool `json:"existing_table"`
	// TopicCreated is false for a topic that was there.
	TopicCreated bool `json:"topic_created"`
	// Changes is in what the manifest differs from the newest of its dataset.
	Changes []schema.Difference `json:"changes,omitempty"`
	// DryRun says that nothing of this was done.
	DryRun bool `json:"dry_run,omitempty"`
	// Error is why it was refused; nothing of this was done.
	Error string `json:"error,omitempty"`
}

// String is the line that a person reads.
func (a appliedDataset) String() string {
	table, topic := "there already", "there already"
	switch {
	case a.Created && a.Existing:
		table = "used as it is"
	case a.Created:
		table = "made"
	case a.Widened:
		table = "takes rows by a further manifest"
	}
	if a.TopicCreated {
		topic = "made"
	}
	line := fmt.Sprintf("%s: table %s %s, topic %s %s", a.Dataset, a.Table, table, a.Topic, topic)
	if a.DryRun {
		line = "dry run, nothing is done: " + line
	}
	return line
}

// print prints the line and, under it, the differences.
func (a appliedDataset) print(p *program) error {
	fmt.Fprintln(p.stdout, printable(a.String()))
	if a.Changes == nil {
		return nil
	}
	return printDifferences(p, a.Changes)
}

func printDifferences(p *program, differences []schema.Difference) error {
	var rows [][]string
	for _, d := range differences {
		rows = append(rows, []string{"", d.Subject, d.Change})
	}
	return printTable(p.stdout, []string{"", "WHAT", "DIFFERENCE"}, rows)
}

// applyOne applies one manifest. What Kafka has against it comes first, then the
// warehouse decides, and only then is a topic made: none stays behind for a
// manifest that is refused.
func (p *program) applyOne(ctx context.Context, w *postgres.Warehouse, conn *kafkaconn.Conn, m schema.Manifest, shape topicShape) (appliedDataset, error) {
	result := appliedDataset{
		Dataset: m.Dataset.String(), Hash: m.Hash(), Table: ddl.PostgresName(m.Table), Topic: m.Topic, Existing: m.Existing, DryRun: shape.dryRun,
	}
	topics, err := conn.Topics(ctx, m.Topic)
	if err != nil {
		return result, err
	}
	topic, there := topics[m.Topic]
	if there {
		if err := checkPolicy(ctx, conn, m.Topic); err != nil {
			return result, err
		}
		if have := len(topic.Leaders); have < int(shape.partitions) {
			fmt.Fprintf(p.stderr, "tallyman: topic %s is there with %d partitions and keeps them; for %d: %s --alter --partitions %[3]d\n",
				m.Topic, have, shape.partitions, topicsCommand(conn, m.Topic))
		}
	}
	act := w.Apply
	if shape.dryRun {
		act = w.Plan
	}
	applied, err := act(ctx, m)
	result.Changes = applied.Changes
	if err != nil {
		return result, err
	}
	result.Created, result.Widened = applied.Created, applied.Widened
	if !shape.dryRun {
		if problem := makeReceiptsTopic(ctx, conn, shape); problem != nil {
			fmt.Fprintln(p.stderr, "tallyman: "+problem.Error())
		}
	}
	switch {
	case there:
	case shape.dryRun:
		result.TopicCreated = true
	default:
		result.TopicCreated, err = makeTopic(ctx, conn, m.Topic, shape)
	}
	return result, err
}

// topicsCommand is how Kafka's own program is told to do something to a topic.
func topicsCommand(conn *kafkaconn.Conn, topic string) string {
	return "kafka-topics.sh --bootstrap-server " + strings.Join(conn.Brokers(), ",") + " --topic " + topic
}

// makeTopic makes a dataset's topic and says whether it did.
func makeTopic(ctx context.Context, conn *kafkaconn.Conn, name string, shape topicShape) (bool, error) {
	err := conn.CreateTopic(ctx, kafkaconn.NewTopic{
		Name: name, Partitions: int(shape.partitions), Replication: int(shape.replication),
		Configs: map[string]string{"cleanup.policy": "delete"}, // whatever the brokers' default is
	})
	if errors.Is(err, kafkaconn.ErrTopicExists) { // somebody else was quicker
		return false, checkPolicy(ctx, conn, name)
	}
	if err != nil {
		command := topicsCommand(conn, name) + " --create --config cleanup.policy=delete"
		if shape.partitions > 0 {
			command += fmt.Sprintf(" --partitions %d", shape.partitions)
		}
		if shape.replication > 0 {
			command += fmt.Sprintf(" --replication-factor %d", shape.replication)
		}
		return false, fmt.Errorf("%w\nthe table is there; if somebody else has to make the topic, this is the command: %s", err, command)
	}
	return true, nil
}

// makeReceiptsTopic makes the topic on which sources are told what is loaded and
// what is missing. Datasets load without it.
func makeReceiptsTopic(ctx context.Context, conn *kafkaconn.Conn, shape topicShape) error {
	const name = batch.ReceiptsTopic
	config, err := conn.TopicConfig(ctx, name)
	switch {
	case err == nil && !strings.Contains(config.CleanupPolicy, "compact"):
		return fmt.Errorf("topic %s has cleanup.policy=%s, so that it grows or forgets: set it to compact", name, config.CleanupPolicy)
	case err == nil:
		return nil
	case !errors.Is(err, kafkaconn.ErrNoTopic):
		return fmt.Errorf("whether there is a topic %s isn't known, and without it sources don't publish again what is missing: %w", name, err)
	}
	err = conn.CreateTopic(ctx, kafkaconn.NewTopic{
		Name: name, Partitions: 1, Replication: int(shape.replication), Configs: map[string]string{"cleanup.policy": "compact"},
	})
	if err == nil || errors.Is(err, kafkaconn.ErrTopicExists) {
		return nil
	}
	command := topicsCommand(conn, name) + " --create --partitions 1 --config cleanup.policy=compact"
	if shape.replication > 0 {
		command += fmt.Sprintf(" --replication-factor %d", shape.replication)
	}
	return fmt.Errorf("%w\nwithout it sources don't publish again what is missing; if somebody else has to make the topic, this is the command: %s", err, command)
}

// checkPolicy refuses a compacted topic, because compaction drops batches.
func checkPolicy(ctx context.Context, conn *kafkaconn.Conn, topic string) error {
	config, err := conn.TopicConfig(ctx, topic)
	if err != nil {
		return err
	}
	if strings.Contains(config.CleanupPolicy, "compact") {
		return fmt.Errorf("topic %s is compacted, which drops batches: set its cleanup.policy to delete, or name another topic in the manifest", topic)
	}
	return nil
}
