package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/loader/job"
	"tallyman/loader/job/load"
	"tallyman/schema"
)

// loadFlags are the options of the job that load deploys.
type loadFlags struct {
	end         string
	parallelism int
	replace     bool
}

func newLoad(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "load [NS/NAME[@HASH]]",
		GroupID: groupRun,
		Short:   "Load a dataset from Kafka into the warehouse, until told to stop",
		Long: `Load a dataset from Kafka into the warehouse, until told to stop.

It deploys the dataset's load job, unless that is active already, and works on it, and on every
other job of the dataset; without a name it works on all active jobs, and deploys none. Run as
many as there is work for: they share the topic's partitions, and are one job however many start.
A job that is active with other options is not changed, unless --replace says so. When its job is
stopped (tallyman job stop), a loader goes on running, idle, until it is deployed again.

Each batch is loaded once, whatever happens to Kafka, to the warehouse or to this program in
between. SIGTERM ends it within ten seconds, with what is in flight committed. /metrics, /livez
and /readyz answer on admin.listen.`,
		Example: `  tallyman load ads/conversions
  tallyman load
  tallyman load ads/conversions --end latest
  tallyman load ads/conversions --admin-listen 0.0.0.0:9187 --log-format json`,
		Args: cobra.MaximumNArgs(1),
	}
	var o loadFlags
	o.add(cmd)
	cmd.Flags().BoolVar(&o.replace, "replace", false, "if the job is active with other options, stop it and start it with these")
	settingFlags(cmd, "kafka", "warehouse", "loader", "admin")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var want schema.Ref
		if len(args) == 1 {
			var err error
			if want, err = schema.ParseRef(args[0]); err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
		} else if cmd.Flags().Changed("end") || cmd.Flags().Changed("parallelism") || o.replace {
			return &usageError{command: cmd.CommandPath(), err: errors.New("--end, --parallelism and --replace are about one job: name its dataset")}
		}
		options, err := o.options()
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		cfg, err := p.settings(cmd, settings.Kafka|settings.Warehouse|settings.Admin)
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
		limitMemory()
		l := newLoads(cfg, w, conn, p.logger(cfg))
		l.want, l.options, l.replace = want, options, o.replace
		return l.run(cmd.Context())
	}
	return cmd
}

// add adds the flags of a load job's options.
func (o *loadFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.end, "end", "", "load through this batch `time` and complete the job then; latest: through now")
	cmd.Flags().IntVar(&o.parallelism, "parallelism", 0, "how many `members` may work on the job at once (default any number)")
}

// options returns the options of the job, as JSON.
func (o *loadFlags) options() ([]byte, error) {
	end := o.end
	if end != "" && end != load.Latest {
		at, err := parseTime("--end", end)
		if err != nil {
			return nil, err
		}
		if _, relative := time.ParseDuration(end); relative == nil {
			return nil, fmt.Errorf("--end %q: want a time, since every replica would mean another one by that", end)
		}
		end = at.UTC().Format(time.RFC3339Nano)
	}
	raw, err := json.Marshal(load.Options{End: end, Parallelism: o.parallelism})
	if err != nil {
		return nil, err
	}
	if _, err := (load.Kind{}).Options(raw); err != nil {
		return nil, err
	}
	return raw, nil
}

// conflictHint says what to do about a job that is active with other options.
func conflictHint(err error) error {
	var other *job.Conflict
	if errors.As(err, &other) {
		return fmt.Errorf("%w: with --replace it is stopped and started with these, or leave out what differs", err)
	}
	return err
}

// limitMemory keeps the process small beside what it holds of batches, unless
// the environment says otherwise.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(54 << 20)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
