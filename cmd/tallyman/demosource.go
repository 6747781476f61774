package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/demo"
	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/source"
)

// newDemoSource is the demo's source process, which only the demo starts.
func newDemoSource(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "demo-source",
		Short:  "Append the demo's rows",
		Hidden: true,
		Args:   cobra.NoArgs,
	}
	rows := cmd.Flags().Int64("rows", 0, "how many rows to append")
	seed := cmd.Flags().Uint64("seed", 0, "what the rows are made from")
	note := cmd.Flags().String("note", "", "the `file` to write each row to before it is appended")
	manifest := cmd.Flags().String("manifest", "", "the dataset's manifest, a YAML `file`")
	grace := cmd.Flags().Duration("replay-grace", 0, "how long after its publishing a missing batch is not published again")
	settingFlags(cmd, "kafka", "source")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.settings(cmd, settings.Kafka)
		if err != nil {
			return err
		}
		m, err := readManifest(*manifest)
		if err != nil {
			return err
		}
		s, err := source.Open(cmd.Context(), source.Config{
			Manifest: m, Kafka: kafkaConfig(cfg), Dir: filepath.Join(cfg.SourceDir, "demo"), Name: "demo", Logger: p.logger(cfg),
			// Nobody wants to wait for more than this in a demo.
			AnnounceEvery: time.Second, ReplayGrace: *grace, ReplayBatches: 2000, ReplayBytes: 64 << 20,
		})
		if err != nil {
			return err
		}
		err = demo.RunSource(cmd.Context(), demo.SourceConfig{
			Source: demoSource{s}, Seed: *seed, Rows: *rows, File: *note, Orders: p.stdin, Report: p.stdout,
		})
		if closed := s.Close(); err == nil {
			err = closed
		}
		return err
	}
	return cmd
}

// demoSource is a source as the demo knows one.
type demoSource struct{ source *source.Source }

// AppendBatch implements demo.Source.
func (s demoSource) AppendBatch(ctx context.Context, id uuid.UUID, rows [][]any) error {
	return s.source.AppendBatch(ctx, id, rows)
}

// Flush implements demo.Source.
func (s demoSource) Flush(ctx context.Context) error { return s.source.Flush(ctx) }

// Republish implements demo.Source.
func (s demoSource) Republish(ctx context.Context) error {
	_, err := s.source.Republish(ctx)
	return err
}
