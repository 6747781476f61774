package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
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
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDatasetInfer(p), newDatasetApply(p), newDatasetList(p), newDatasetShow(p))
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

// readEach reads manifests up to the first that is at fault.
func readEach(files []string) ([]schema.Manifest, error) {
	var manifests []schema.Manifest
	for _, file := range files {
		m, err := readManifest(file)
		if err != nil {
			return nil, err
		}
		manifests = append(manifests, m)
	}
	return manifests, nil
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
	return datasetsNamed(name, all)
}

// datasetsNamed picks the named dataset; an error if it isn't there.
func datasetsNamed(name string, all []postgres.DatasetInfo) ([]postgres.DatasetInfo, error) {
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

// checkDataset refuses the name of a dataset that the warehouse doesn't have.
func checkDataset(ctx context.Context, w *postgres.Warehouse, name string) error {
	all, err := w.Datasets(ctx)
	if err == nil {
		_, err = datasetsNamed(name, all)
	}
	return err
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
