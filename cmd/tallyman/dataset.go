package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/kafkaconn"
	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink/postgres"
)

func newDataset(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dataset",
		GroupID: groupSetUp,
		Short:   "Make datasets, list them, show one",
		Long:    "Write manifests for files, make datasets from manifests, list those of the warehouse, show one.",
		Example: `  tallyman dataset infer monday.csv > conversions.yaml
  tallyman dataset apply conversions.yaml
  tallyman dataset list
  tallyman dataset show ads/conversions`,
	}
	cmd.AddCommand(newDatasetInfer(p), newDatasetApply(p), newDatasetList(p), newDatasetShow(p))
	return cmd
}

// topicShape is how a dataset's topic is made; 0 leaves it to the broker.
type topicShape struct {
	partitions  uint32
	replication uint16
}

func newDatasetApply(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply MANIFEST...",
		Short: "Make the tables and topics of datasets, by their manifests",
		Long: `Make the tables and topics of datasets, by their manifests.

A manifest is YAML: the dataset's name, its columns with their types, and, where the defaults
don't fit, topic and table. Readers use the view of that name; the rows are in a table behind it.
Applying the same manifest again changes nothing. If you may not create topics, the command
for somebody who may is printed.`,
		Example: `  tallyman dataset apply conversions.yaml
  tallyman dataset apply *.yaml --partitions 12 --replication-factor 3`,
		Args: cobra.MinimumNArgs(1),
	}
	var shape topicShape
	cmd.Flags().Uint32Var(&shape.partitions, "partitions", 0, "partitions of a topic that is made (`count`; default the broker's)")
	cmd.Flags().Uint16Var(&shape.replication, "replication-factor", 0, "replicas of a topic that is made (`count`; default the broker's)")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse", "kafka")
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		var manifests []schema.Manifest
		for _, file := range files {
			m, err := readManifest(file)
			if err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
			manifests = append(manifests, m)
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
		for _, m := range manifests {
			result, err := p.applyOne(cmd.Context(), w, conn, m, shape)
			if err != nil {
				return err
			}
			results = append(results, result)
			if *output == asTable {
				fmt.Fprintln(p.stdout, result)
			}
		}
		if *output == asJSON {
			return printJSON(p.stdout, results)
		}
		return nil
	}
	return cmd
}

// readManifest reads a manifest; every fault of it is told with file and line.
func readManifest(file string) (schema.Manifest, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return schema.Manifest{}, err
	}
	m, err := schema.ParseManifest(text)
	if err == nil {
		return m, nil
	}
	var lines []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		lines = append(lines, file+": "+line)
	}
	return m, errors.New(strings.Join(lines, "\n"))
}

// appliedDataset says what became of one manifest.
type appliedDataset struct {
	Dataset string `json:"dataset"`
	Hash    string `json:"manifest_hash"`
	Table   string `json:"table"`
	Topic   string `json:"topic"`
	Created bool   `json:"created"`
	// TopicCreated is false for a topic that was there.
	TopicCreated bool `json:"topic_created"`
}

// String is the line that a person reads.
func (a appliedDataset) String() string {
	what := map[bool]string{true: "made", false: "there already"}
	return fmt.Sprintf("%s: table %s %s, topic %s %s", a.Dataset, a.Table, what[a.Created], a.Topic, what[a.TopicCreated])
}

// applyOne applies one manifest. What Kafka has against it comes first, then the
// warehouse decides, and only then is a topic made: none stays behind for a
// manifest that is refused.
func (p *program) applyOne(ctx context.Context, w *postgres.Warehouse, conn *kafkaconn.Conn, m schema.Manifest, shape topicShape) (appliedDataset, error) {
	topics, err := conn.Topics(ctx, m.Topic)
	if err != nil {
		return appliedDataset{}, err
	}
	topic, there := topics[m.Topic]
	if there {
		if err := checkPolicy(ctx, conn, m.Topic); err != nil {
			return appliedDataset{}, err
		}
		if have := len(topic.Leaders); have < int(shape.partitions) {
			fmt.Fprintf(p.stderr, "tallyman: topic %s is there with %d partitions and keeps them; for %d: %s --alter --partitions %[3]d\n",
				m.Topic, have, shape.partitions, topicsCommand(conn, m.Topic))
		}
	}
	applied, err := w.Apply(ctx, m)
	if err != nil {
		return appliedDataset{}, err
	}
	result := appliedDataset{
		Dataset: m.Dataset.String(), Hash: applied.Hash, Table: ddl.PostgresName(m.Table), Topic: m.Topic, Created: applied.Created,
	}
	if !there {
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

// listedDataset is a dataset as list and show print it.
type listedDataset struct {
	Dataset   string          `json:"dataset"`
	Revision  int64           `json:"revision"`
	State     string          `json:"state"`
	Table     string          `json:"table"`
	Physical  string          `json:"physical_table"`
	Topic     string          `json:"topic"`
	Hash      string          `json:"manifest_hash"`
	CreatedAt time.Time       `json:"created_at"`
	Manifest  json.RawMessage `json:"manifest,omitempty"`
}

// datasets returns what the warehouse has of the named dataset, or of all.
func (p *program) datasets(cmd *cobra.Command, name string) ([]postgres.DatasetInfo, error) {
	cfg, err := p.settings(cmd, settings.Warehouse)
	if err != nil {
		return nil, err
	}
	w, err := p.warehouse(cmd.Context(), cfg)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := checkTarget(cmd.Context(), w, cfg.WarehouseTarget); err != nil {
		return nil, err
	}
	all, err := w.Datasets(cmd.Context())
	if err != nil || name == "" {
		return all, err
	}
	var found []postgres.DatasetInfo
	for _, d := range all {
		if d.Revision.Manifest.Dataset.String() == name {
			found = append(found, d)
		}
	}
	if found == nil {
		return nil, unknownDataset(name, all)
	}
	return found, nil
}

// unknownDataset names the datasets that there are.
func unknownDataset(name string, all []postgres.DatasetInfo) error {
	var known []string
	for _, d := range all {
		known = append(known, d.Revision.Manifest.Dataset.String())
	}
	if known == nil {
		return fmt.Errorf("the warehouse has no dataset %s, nor any other: make it with tallyman dataset apply MANIFEST", name)
	}
	return fmt.Errorf("the warehouse has no dataset %s; it has %s", name, strings.Join(known, ", "))
}

func listed(d postgres.DatasetInfo) listedDataset {
	m := d.Revision.Manifest
	return listedDataset{
		Dataset: m.Dataset.String(), Revision: d.Revision.ID, State: string(d.Revision.State), Table: ddl.PostgresName(m.Table),
		Physical: ddl.PostgresName(d.Revision.Physical), Topic: m.Topic, Hash: d.Hash, CreatedAt: d.CreatedAt.UTC(),
	}
}

func newDatasetList(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the datasets of the warehouse",
		Example: "  tallyman dataset list\n  tallyman dataset list -o json",
		Args:    cobra.NoArgs,
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := p.datasets(cmd, "")
		if err != nil {
			return err
		}
		list := []listedDataset{}
		var rows [][]string
		for _, d := range all {
			l := listed(d)
			list = append(list, l)
			rows = append(rows, []string{l.Dataset, l.State, l.Table, l.Topic, l.Hash[:12], l.CreatedAt.Format(time.DateTime)})
		}
		if *output == asJSON {
			return printJSON(p.stdout, list)
		}
		return printTable(p.stdout, []string{"DATASET", "STATE", "TABLE", "TOPIC", "MANIFEST", "CREATED"}, rows)
	}
	return cmd
}

func newDatasetShow(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show NS/NAME",
		Short:   "Show a dataset: where its rows are, and its columns",
		Example: "  tallyman dataset show ads/conversions\n  tallyman dataset show ads/conversions -o json",
		Args:    cobra.ExactArgs(1),
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := schema.ParseDataset(args[0]); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		found, err := p.datasets(cmd, args[0])
		if err != nil {
			return err
		}
		d := found[len(found)-1]
		l := listed(d)
		l.Manifest = d.Revision.Manifest.Canonical()
		if *output == asJSON {
			return printJSON(p.stdout, l)
		}
		fmt.Fprintf(p.stdout, "dataset   %s, %s\nmanifest  %s\ntopic     %s\ntable     %s over %s\n\n",
			l.Dataset, l.State, l.Hash, l.Topic, l.Table, l.Physical)
		var rows [][]string
		for _, c := range d.Revision.Manifest.Columns {
			null := "no"
			if c.Nullable {
				null = "yes"
			}
			rows = append(rows, []string{c.Name, string(c.Type), null})
		}
		return printTable(p.stdout, []string{"COLUMN", "TYPE", "NULLABLE"}, rows)
	}
	return cmd
}
