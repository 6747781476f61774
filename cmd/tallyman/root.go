package main

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
)

// The groups of the help, in its order.
const (
	groupTry    = "try"
	groupSetUp  = "setup"
	groupRun    = "run"
	groupOutage = "outage"
	groupChange = "change"
)

// newRoot builds the tree of commands. What it points to becomes true once a
// command starts to work; until then an error is one of usage.
func newRoot(p *program) (root *cobra.Command, started *bool) {
	started = new(bool)
	root = &cobra.Command{
		Use:   "tallyman",
		Short: "Load batches of rows from Kafka into PostgreSQL, each exactly once",
		Long: `Tallyman loads batches of rows from Kafka into PostgreSQL, each exactly once.

Settings come from tallyman.yaml, then from the environment (TALLYMAN_KAFKA_BROKERS
for kafka.brokers; also DATABASE_URL, PGHOST and so on, KAFKA_BROKERS), then from flags.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 the check found something.`,
		Example: `  tallyman demo
  tallyman init
  tallyman dataset apply conversions.yaml
  tallyman push ads/conversions monday.csv
  tallyman load ads/conversions
  tallyman status`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRun:  func(*cobra.Command, []string) { *started = true },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddGroup(
		&cobra.Group{ID: groupTry, Title: "Try it:"},
		&cobra.Group{ID: groupSetUp, Title: "Set up:"},
		&cobra.Group{ID: groupRun, Title: "Run:"},
		&cobra.Group{ID: groupOutage, Title: "After an outage:"},
		&cobra.Group{ID: groupChange, Title: "Change:"},
	)
	global := root.PersistentFlags()
	global.String("config", "", "configuration `file` (default ./tallyman.yaml if it is there)")
	settingFlags(root, "log", "allow_plaintext")

	root.AddCommand(
		newDemo(p), newDemoSource(p),
		newInit(p), newDataset(p),
		newPush(p), newSource(p), newLoad(p), newStatus(p), newQuarantine(p),
		newVerify(p), newWait(p), newMissing(p), newReplay(p), newRewind(p),
		newJob(p), newRevision(p), newResync(p),
		newVersion(p), newCompletion(p),
	)
	return root, started
}

// settingFlags gives a command a flag for every setting of the groups. The root's are everybody's.
func settingFlags(cmd *cobra.Command, groups ...string) {
	flags := cmd.Flags()
	if !cmd.HasParent() && cmd.Name() == "tallyman" {
		flags = cmd.PersistentFlags()
	}
	for _, s := range settings.Table() {
		for _, group := range groups {
			if s.Group() != group || s.Secret {
				continue
			}
			usage := fmt.Sprintf("%s (`%s`)", strings.ToLower(s.Doc[:1])+strings.TrimSuffix(s.Doc[1:], "."), s.Unit)
			flags.String(s.Flag(), s.Default, usage)
		}
	}
}

// settings reads the configuration and checks it for what the command needs.
func (p *program) settings(cmd *cobra.Command, need settings.Need) (settings.Config, error) {
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return settings.Config{}, err
	}
	cfg, err := settings.Load(settings.Input{File: file, Env: p.env, Flags: cmd.Flags()})
	if err != nil {
		return settings.Config{}, err
	}
	if err := cfg.Need(need); err != nil || need&settings.Kafka == 0 {
		return cfg, err
	}
	_, err = p.kafka(cfg) // reads the files that the settings name
	return cfg, err
}

// logger returns the log of a command, on standard error.
func (p *program) logger(cfg settings.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(p.stderr, options))
	}
	return slog.New(slog.NewTextHandler(p.stderr, options))
}
