package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func newRewind(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rewind NS/NAME",
		GroupID: groupOutage,
		Short:   "Read a dataset's topic again from its start",
		Long: `Read a dataset's topic again from its start.

The positions go back to the first offset that each partition still has, and every loader
that works on the dataset notices. Nothing is loaded twice: what is there already is known
by its id and passed over, which is about twice as fast as loading. What is missing, say
after the warehouse was restored from a backup, is loaded. It is safe at any time.`,
		Example: `  tallyman rewind ads/conversions
  tallyman status ads/conversions`,
		Args: cobra.ExactArgs(1),
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse", "kafka")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := schema.ParseDataset(args[0]); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		cfg, err := p.settings(cmd, settings.Warehouse|settings.Kafka)
		if err != nil {
			return err
		}
		result, err := p.rewind(cmd, cfg, args[0])
		if err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, result)
		}
		return result.print(p)
	}
	return cmd
}

// rewound says where the positions of a dataset went.
type rewound struct {
	Dataset   string            `json:"dataset"`
	Topic     string            `json:"topic"`
	Positions []rewoundPosition `json:"positions"`
}

type rewoundPosition struct {
	Partition int32 `json:"partition"`
	Next      int64 `json:"next_offset"`
	Era       int64 `json:"era"`
}

func (p *program) rewind(cmd *cobra.Command, cfg settings.Config, name string) (rewound, error) {
	ctx := cmd.Context()
	w, err := p.warehouse(ctx, cfg)
	if err != nil {
		return rewound{}, err
	}
	defer w.Close()
	if err := checkTarget(ctx, w, cfg.WarehouseTarget); err != nil {
		return rewound{}, err
	}
	r, err := activeRevision(cmd, w, name)
	if err != nil {
		return rewound{}, err
	}
	conn, err := p.kafka(cfg)
	if err != nil {
		return rewound{}, err
	}
	defer conn.Close()
	topic := r.Manifest.Topic
	offsets, err := conn.LogStarts(ctx, topic)
	if err != nil {
		return rewound{}, fmt.Errorf("%w; no position was changed", err)
	}
	var starts []postgres.Start
	for _, number := range slices.Sorted(maps.Keys(offsets)) {
		starts = append(starts, postgres.Start{
			Partition: sink.Partition{Cluster: conn.Cluster(), Topic: topic, Number: number}, Offset: offsets[number]})
	}
	moved, err := w.Rewind(ctx, r.ID, starts)
	if err != nil {
		return rewound{}, err
	}
	result := rewound{Dataset: name, Topic: topic, Positions: []rewoundPosition{}}
	for _, m := range moved {
		result.Positions = append(result.Positions, rewoundPosition{Partition: m.Partition.Number, Next: m.Next, Era: m.Era})
	}
	slices.SortFunc(result.Positions, func(a, b rewoundPosition) int { return int(a.Partition) - int(b.Partition) })
	return result, nil
}

// activeRevision finds the revision that loaders work on.
func activeRevision(cmd *cobra.Command, w *postgres.Warehouse, name string) (sink.Revision, error) {
	d, err := activeDataset(cmd, w, name)
	return d.Revision, err
}

// activeDataset finds a dataset with the revision that loaders work on.
func activeDataset(cmd *cobra.Command, w *postgres.Warehouse, name string) (postgres.DatasetInfo, error) {
	all, err := w.Datasets(cmd.Context())
	if err != nil {
		return postgres.DatasetInfo{}, err
	}
	for _, d := range all {
		if d.Revision.State == sink.Active && d.Revision.Manifest.Dataset.String() == name {
			return d, nil
		}
	}
	return postgres.DatasetInfo{}, unknownDataset(name, all)
}

func (r rewound) print(p *program) error {
	if len(r.Positions) == 0 {
		_, err := fmt.Fprintf(p.stdout, "%s: nothing of topic %s has been read yet, so there is nothing to rewind\n", r.Dataset, r.Topic)
		return err
	}
	fmt.Fprintf(p.stdout, "%s: topic %s is read again from its start; what is loaded already is passed over\n\n", r.Dataset, r.Topic)
	var rows [][]string
	for _, x := range r.Positions {
		rows = append(rows, []string{strconv.Itoa(int(x.Partition)), strconv.FormatInt(x.Next, 10), strconv.FormatInt(x.Era, 10)})
	}
	return printTable(p.stdout, []string{"PARTITION", "POSITION", "ERA"}, rows)
}
