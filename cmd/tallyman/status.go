package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/kafkaconn"
	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink/postgres"
)

func newStatus(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status [NS/NAME]",
		GroupID: groupRun,
		Short:   "Show what is loaded, what waits in Kafka and what is in quarantine",
		Long: `Show what is loaded, what waits in Kafka and what is in quarantine.

Rows and batches are counted in the warehouse's ledger, without what it has forgotten. BEHIND is
how many messages of the topic are not committed yet; it needs Kafka, everything else is told
without it. QUARANTINE is how many messages could not be loaded and are kept; UNREAD is how many
were gone from Kafka before they were read. MISSING is how many batches sources announced that are
nowhere; COMPLETE THROUGH is the time, by their clocks, through which everything announced is
loaded, or "all" if all of them are closed and loaded. It speaks for the sources that the manifest
expects; where it names none, for the known ones: those that the warehouse has heard of.

With a dataset's name: each partition, each reason, and the streams that hold it back, with how
many of their announcements were refused.`,
		Example: `  tallyman status
  tallyman status ads/conversions
  tallyman status -o json | jq '.datasets[].behind'`,
		Args: cobra.MaximumNArgs(1),
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse", "kafka")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := ""
		if len(args) == 1 {
			name = args[0]
			if _, err := schema.ParseDataset(name); err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
		}
		cfg, err := p.settings(cmd, settings.Warehouse)
		if err != nil {
			return err
		}
		report, err := p.status(cmd.Context(), cfg, name)
		if err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, report)
		}
		if report.KafkaError != "" {
			fmt.Fprintf(p.stderr, "tallyman: Kafka can't be asked, so how far loaders are behind is not known: %s\n", printable(report.KafkaError))
		}
		if name != "" {
			return report.Datasets[0].print(p)
		}
		return report.print(p)
	}
	return cmd
}

// statusReport is how the warehouse stands. A pointer that is null is not known.
type statusReport struct {
	Target string       `json:"target"`
	Ledger ledgerStatus `json:"ledger"`
	// KafkaError says why nothing is known of the topics.
	KafkaError string          `json:"kafka_error,omitempty"`
	Datasets   []datasetStatus `json:"datasets"`
}

type ledgerStatus struct {
	Horizon *time.Time `json:"horizon"` // null: none, batches of any age load
	End     time.Time  `json:"end"`     // batches from then on have no partition yet
}

type datasetStatus struct {
	Dataset  string     `json:"dataset"`
	Revision int64      `json:"revision"`
	Table    string     `json:"table"`
	Topic    string     `json:"topic"`
	Rows     int64      `json:"rows"`
	Batches  int64      `json:"batches"`
	Bytes    int64      `json:"bytes"`
	LastLoad *time.Time `json:"last_load"` // null: never
	Behind   *int64     `json:"behind"`
	Unread   int64      `json:"unread"`
	Missing  int64      `json:"missing"`
	// CompleteThrough is null where nothing is known of the sources, or Complete.
	CompleteThrough *time.Time `json:"complete_through"`
	// ExpectedSources is how many sources the manifest expects; 0: known ones count.
	ExpectedSources int64 `json:"expected_sources"`
	// Complete says that every stream announced is closed and loaded.
	Complete bool `json:"complete"`
	// Refused is how many announcements of known streams were not taken.
	Refused int64 `json:"refused_announcements"`
	// Holds are what holds the dataset back, the worst first, at most ten.
	Holds      []holdStatus       `json:"held_by"`
	Quarantine []quarantineStatus `json:"quarantine"`
	Partitions []partitionStatus  `json:"partitions"`
	// TopicError says why nothing is known of the topic.
	TopicError string `json:"topic_error,omitempty"`
}

type quarantineStatus struct {
	Reason   string    `json:"reason"`
	Messages int64     `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest"`
}

type partitionStatus struct {
	Cluster   string `json:"cluster"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next_offset"` // 0 and era 0: never read
	Era       int64  `json:"era"`
	LogStart  *int64 `json:"log_start"`
	LogEnd    *int64 `json:"log_end"`
	Behind    *int64 `json:"behind"`
}

// status asks the warehouse, and then Kafka as far as it answers.
func (p *program) status(ctx context.Context, cfg settings.Config, name string) (statusReport, error) {
	w, err := p.warehouse(ctx, cfg)
	if err != nil {
		return statusReport{}, err
	}
	defer w.Close()
	if err := checkTarget(ctx, w, cfg.WarehouseTarget); err != nil {
		return statusReport{}, err
	}
	window, err := w.Window(ctx)
	if err != nil {
		return statusReport{}, err
	}
	all, err := w.Status(ctx)
	if err != nil {
		return statusReport{}, err
	}
	if name != "" {
		if all, err = only(name, all); err != nil {
			return statusReport{}, err
		}
	}
	report := statusReport{Target: cfg.WarehouseTarget, Ledger: ledgerStatus{End: window.End}, Datasets: []datasetStatus{}}
	if !window.Horizon.IsZero() {
		report.Ledger.Horizon = &window.Horizon
	}
	conn, err := p.answering(ctx, cfg)
	if err != nil {
		report.KafkaError = err.Error()
	} else {
		defer conn.Close()
	}
	for _, s := range all {
		d := datasetReport(s)
		c, err := w.Completeness(ctx, s.Revision, cfg.LoaderMissingGrace)
		if err != nil {
			return statusReport{}, err
		}
		d.complete(c)
		if conn != nil {
			if err := d.ask(ctx, conn); err != nil {
				d.TopicError = err.Error()
			}
		}
		report.Datasets = append(report.Datasets, d)
	}
	return report, nil
}

// only returns the status of one dataset.
func only(name string, all []postgres.DatasetStatus) ([]postgres.DatasetStatus, error) {
	var known []postgres.DatasetInfo
	for _, s := range all {
		if s.Revision.Manifest.Dataset.String() == name {
			return []postgres.DatasetStatus{s}, nil
		}
		known = append(known, postgres.DatasetInfo{Revision: s.Revision})
	}
	return nil, unknownDataset(name, known)
}

// kafkaPatience is how long a question to Kafka may take here.
const kafkaPatience = 5 * time.Second

// answering returns a connection to a cluster that answers.
func (p *program) answering(ctx context.Context, cfg settings.Config) (*kafkaconn.Conn, error) {
	if err := cfg.Need(settings.Kafka); err != nil {
		return nil, err
	}
	conn, err := p.kafka(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, kafkaPatience, fmt.Errorf("no answer from %v in %v", conn.Brokers(), kafkaPatience))
	defer cancel()
	if err := conn.APICheck(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// datasetReport is what the warehouse alone says of a dataset.
func datasetReport(s postgres.DatasetStatus) datasetStatus {
	m := s.Revision.Manifest
	d := datasetStatus{
		Dataset: m.Dataset.String(), Revision: s.Revision.ID, Table: ddl.PostgresName(m.Table), Topic: m.Topic,
		Rows: s.Rows, Batches: s.Batches, Bytes: s.Bytes, Unread: s.Unread,
		Holds: []holdStatus{}, Quarantine: []quarantineStatus{}, Partitions: []partitionStatus{},
	}
	if !s.LastLoad.IsZero() {
		at := s.LastLoad.UTC()
		d.LastLoad = &at
	}
	for _, q := range s.Quarantine {
		d.Quarantine = append(d.Quarantine, quarantineStatus{Reason: q.Reason, Messages: q.Messages, Bytes: q.Bytes, Oldest: q.Oldest.UTC()})
	}
	for _, x := range s.Positions {
		d.Partitions = append(d.Partitions, partitionStatus{
			Cluster: x.Partition.Cluster, Topic: x.Partition.Topic, Partition: x.Partition.Number, Next: x.Next, Era: x.Era})
	}
	return d
}

// ask adds what Kafka knows of the topic: where each partition starts and ends,
// and so how far its position is behind.
func (d *datasetStatus) ask(ctx context.Context, conn *kafkaconn.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, kafkaPatience, fmt.Errorf("no answer in %v", kafkaPatience))
	defer cancel()
	starts, err := conn.LogStarts(ctx, d.Topic)
	if err != nil {
		return err
	}
	ends, err := conn.HighWaters(ctx, d.Topic)
	if err != nil {
		return err
	}
	sum := int64(0)
	for _, number := range slices.Sorted(maps.Keys(ends)) {
		start, end := starts[number], ends[number]
		x := d.partition(conn.Cluster(), number)
		behind := max(0, end-max(x.Next, start))
		x.LogStart, x.LogEnd, x.Behind = &start, &end, &behind
		sum += behind
	}
	d.Behind = &sum
	return nil
}

// partition returns the entry of a partition of the topic, a new one if it was
// never read.
func (d *datasetStatus) partition(cluster string, number int32) *partitionStatus {
	i := slices.IndexFunc(d.Partitions, func(x partitionStatus) bool {
		return x.Cluster == cluster && x.Topic == d.Topic && x.Partition == number
	})
	if i < 0 {
		i = len(d.Partitions)
		d.Partitions = append(d.Partitions, partitionStatus{Cluster: cluster, Topic: d.Topic, Partition: number})
	}
	return &d.Partitions[i]
}

func (d *datasetStatus) quarantined() (messages int64) {
	for _, q := range d.Quarantine {
		messages += q.Messages
	}
	return messages
}

// through says how far the dataset is complete.
func (d *datasetStatus) through() string {
	switch {
	case d.Complete:
		return "all"
	case d.CompleteThrough == nil:
		return unknown
	}
	return moment(d.CompleteThrough)
}

// unknown is what a table shows for what Kafka didn't tell.
const unknown = "?"

func number(n *int64) string {
	if n == nil {
		return unknown
	}
	return strconv.FormatInt(*n, 10)
}

func moment(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.DateTime)
}

func (r statusReport) print(p *program) error {
	from := ""
	if r.Ledger.Horizon != nil {
		from = "from " + r.Ledger.Horizon.Format(time.DateOnly) + " "
	}
	fmt.Fprintf(p.stdout, "warehouse %s: the ledger takes batches %sup to %s\n\n", printable(r.Target), from, r.Ledger.End.Format(time.DateOnly))
	var rows [][]string
	var problems error
	for _, d := range r.Datasets {
		quarantined := d.quarantined()
		rows = append(rows, []string{d.Dataset, number(&d.Rows), number(&d.Batches), number(d.Behind), moment(d.LastLoad), number(&quarantined), number(&d.Unread),
			number(&d.Missing), d.through()})
		if d.TopicError != "" {
			problems = errors.Join(problems, fmt.Errorf("%s: %s", d.Dataset, d.TopicError))
		}
	}
	if problems != nil {
		p.report(problems)
	}
	if rows == nil {
		_, err := fmt.Fprintln(p.stdout, "no datasets yet: make one with tallyman dataset apply MANIFEST")
		return err
	}
	err := printTable(p.stdout, []string{"DATASET", "ROWS", "BATCHES", "BEHIND", "LAST LOAD", "QUARANTINE", "UNREAD", "MISSING", "COMPLETE THROUGH"}, rows)
	for _, d := range r.Datasets {
		if d.Refused > 0 {
			fmt.Fprintf(p.stdout, "%s: %d announcements were refused; tallyman status %[1]s tells more\n", d.Dataset, d.Refused)
		}
	}
	return err
}

func (d datasetStatus) print(p *program) error {
	if d.TopicError != "" {
		p.report(errors.New(d.TopicError))
	}
	fmt.Fprintf(p.stdout, "dataset     %s, revision %d\ntable       %s\nloaded      %d rows in %d batches of %d bytes, last %s\nbehind      %s messages of topic %s\nunread      %d\nquarantine  %d\nmissing     %d\ncomplete    through %s (%s)\n",
		d.Dataset, d.Revision, printable(d.Table), d.Rows, d.Batches, d.Bytes, moment(d.LastLoad), number(d.Behind), d.Topic, d.Unread, d.quarantined(), d.Missing, d.through(), speaksFor(d.ExpectedSources))
	if err := d.printHeld(p); err != nil {
		return err
	}
	var rows [][]string
	for _, x := range d.Partitions {
		next := strconv.FormatInt(x.Next, 10)
		if x.Era == 0 {
			next = "never read"
		}
		rows = append(rows, []string{x.Cluster + "/" + strconv.Itoa(int(x.Partition)), next, number(x.LogStart), number(x.LogEnd), number(x.Behind), strconv.FormatInt(x.Era, 10)})
	}
	if err := printTable(p.stdout, []string{"PARTITION", "POSITION", "LOG START", "LOG END", "BEHIND", "ERA"}, rows); err != nil || len(d.Quarantine) == 0 {
		return err
	}
	fmt.Fprintln(p.stdout)
	rows = nil
	for _, q := range d.Quarantine {
		rows = append(rows, []string{q.Reason, strconv.FormatInt(q.Messages, 10), strconv.FormatInt(q.Bytes, 10), q.Oldest.Format(time.DateTime)})
	}
	return printTable(p.stdout, []string{"IN QUARANTINE FOR", "MESSAGES", "BYTES", "OLDEST"}, rows)
}
