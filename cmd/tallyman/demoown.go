package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tallyman/cmd/tallyman/internal/demo"
	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/source/intake"
	"tallyman/source/intake/infer"
)

// check refuses flags that don't go together.
func (o *demoOptions) check(flags *pflag.FlagSet) error {
	if o.rows < 1 || o.loaders < 1 || o.loaders > 64 {
		return errors.New("--rows must be at least 1, --loaders 1 to 64")
	}
	if o.file != "" {
		if flags.Changed("rows") || flags.Changed("seed") {
			return errors.New("--rows and --seed are for made-up rows, not for --file")
		}
		if o.file == intake.Stdin {
			return errors.New("--file must be a file: it is read three times")
		}
		_, _, err := o.infer.parse(o.file)
		return err
	}
	for _, name := range []string{"name", "format", "null"} {
		if flags.Changed(name) {
			return errors.New("--" + name + " is for --file")
		}
	}
	return nil
}

// demoFile infers the manifest of the user's file.
func (p *program) demoFile(ctx context.Context, o demoOptions) (*demo.File, int64, error) {
	file, dataset, err := o.infer.parse(o.file)
	if err != nil {
		return nil, 0, err
	}
	path, err := filepath.Abs(file.Name)
	if err != nil {
		return nil, 0, err
	}
	result, err := p.infer(ctx, file, infer.Config{
		Dataset: dataset, Layout: intake.Layout{Format: file.Format, Null: o.infer.null},
	})
	if err != nil {
		return nil, 0, err
	}
	return &demo.File{Path: path, Format: string(file.Format), Null: o.infer.null, Manifest: result.Manifest}, result.Rows, nil
}

// The flags that together ask for a demo on the user's servers. What is
// configured elsewhere does not: a demo must be asked for where it is let in.
const (
	brokersFlag   = "kafka-brokers"
	warehouseFlag = "warehouse-url"
)

// demoServers returns the user's servers if the command line names them; nil:
// the demo is to bring its own.
func (p *program) demoServers(cmd *cobra.Command) (*demo.Servers, error) {
	flags := cmd.Flags()
	if flags.Changed(brokersFlag) != flags.Changed(warehouseFlag) {
		return nil, &usageError{command: cmd.CommandPath(), err: errors.New("--" + brokersFlag + " and --" + warehouseFlag + " go together: for a demo on your servers both are needed")}
	}
	if !flags.Changed(brokersFlag) {
		return nil, nil
	}
	cfg, err := p.settings(cmd, settings.Kafka|settings.Warehouse)
	if err != nil {
		return nil, err
	}
	s := &demo.Servers{Kafka: kafkaConfig(cfg), URL: cfg.WarehouseURL}
	for _, setting := range settings.Table() {
		if f := flags.Lookup(setting.Flag()); f != nil && f.Changed {
			s.Env = append(s.Env, setting.Env()+"="+f.Value.String())
		}
	}
	if f := flags.Lookup("config"); f != nil && f.Changed {
		s.Args = []string{"--config", f.Value.String()}
	}
	return s, nil
}
