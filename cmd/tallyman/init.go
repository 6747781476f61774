package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/sink/postgres"
)

func newInit(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "init",
		GroupID: groupSetUp,
		Short:   "Create the schema tallyman in the warehouse, or bring it up to date",
		Long: `Create the schema tallyman in the warehouse, or bring it up to date.

It holds the ledger of what was loaded, the positions in Kafka, the datasets and the
quarantine. The ledger gets partitions for two years ahead: run init again within that
time, for instance with each deployment; it changes only what is missing, while loaders run.
It needs a direct connection, without a pooler.`,
		Example: `  tallyman init
  DATABASE_URL=postgres://loader@db.example/warehouse tallyman init
  tallyman init --rename-target --warehouse-target staging`,
		Args: cobra.NoArgs,
	}
	rename := cmd.Flags().Bool("rename-target", false, "give the warehouse the configured name, if it is a copy of another")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.settings(cmd, settings.Warehouse)
		if err != nil {
			return err
		}
		w, err := p.warehouse(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		defer w.Close()
		report, err := w.Init(cmd.Context(), postgres.InitOptions{RenameTarget: *rename})
		if err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, struct {
				postgres.InitReport
				LedgerEnd time.Time `json:"ledger_end"`
			}{report, report.Window.End})
		}
		switch report.From {
		case report.To:
			fmt.Fprintf(p.stdout, "warehouse %s: the schema is up to date (version %d)\n", report.Target, report.To)
		default:
			fmt.Fprintf(p.stdout, "warehouse %s: brought the schema from version %d to %d\n", report.Target, report.From, report.To)
		}
		fmt.Fprintf(p.stdout, "made %d partitions of the ledger; it takes batches up to %s\n",
			len(report.Partitions), report.Window.End.Format(time.DateOnly))
		return nil
	}
	return cmd
}
