package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/sink/postgres"
)

// The values of init --roles.
const (
	rolesPrint  = "print"
	rolesCreate = "create"
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
It needs a direct connection, without a pooler.

Tables that a manifest partitions get partitions ahead too: by day for two months, by month for
two years, by year for three. Rows of a time that has none go to the partition called _default,
and a partition whose rows are there already is left out and named.

--roles prints SQL for a database administrator, who may create roles, and does nothing: an
owner for init and dataset apply, a loader that can change nothing but what it loads, a reader.
--roles=create runs that SQL, and then init. Once the roles are there, init and dataset apply give
them what they need, and no more.`,
		Example: `  tallyman init
  DATABASE_URL=postgres://loader@db.example/warehouse tallyman init
  tallyman init --roles > roles.sql
  tallyman init --roles=create
  tallyman init --rename-target --warehouse-target staging`,
		Args: cobra.NoArgs,
	}
	rename := cmd.Flags().Bool("rename-target", false, "give the warehouse the configured name, if it is a copy of another")
	roles := cmd.Flags().String("roles", "", "`print or create` roles for owner, loader and reader")
	cmd.Flags().Lookup("roles").NoOptDefVal = rolesPrint
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch *roles {
		case rolesPrint:
			_, err := io.WriteString(p.stdout, postgres.RolesScript())
			return err
		case "", rolesCreate:
		default:
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("--roles=%s: must be print or create", *roles)}
		}
		cfg, err := p.settings(cmd, settings.Warehouse)
		if err != nil {
			return err
		}
		w, err := p.warehouse(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		defer w.Close()
		report, err := w.Init(cmd.Context(), postgres.InitOptions{RenameTarget: *rename, Roles: *roles == rolesCreate})
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
		return printTablePartitions(p, report)
	}
	return cmd
}

// printTablePartitions tells of the partitions that the tables of datasets got
// or did not get.
func printTablePartitions(p *program, report postgres.InitReport) error {
	if n := len(report.TablePartitions); n > 0 {
		fmt.Fprintf(p.stdout, "made %d partitions of datasets' tables\n", n)
	}
	if len(report.Skipped) == 0 {
		return nil
	}
	fmt.Fprintf(p.stdout, "left out, and loads go on without them:\n\n")
	var rows [][]string
	for _, s := range report.Skipped {
		rows = append(rows, []string{s.Dataset, s.Partition, s.From.Format(time.DateOnly), s.To.Format(time.DateOnly), s.Reason})
	}
	return printTable(p.stdout, []string{"DATASET", "PARTITION", "FROM", "TO", "REASON"}, rows)
}
