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
quarantine. It is safe to repeat, for instance with each deployment, and to interrupt; it changes
only what is missing, while loaders run. It needs a direct connection, without a pooler. The ledger
gets partitions for two years ahead, which loaders then keep up.

Tables that a manifest partitions get partitions ahead too: by day for two months, by month for
two years, by year for three. Rows of a time that has none go to the partition called _default,
and a partition whose rows are there already is left out and named.

--retention has the ledger forget months that are wholly older: now, and with every later init,
which is to be run once a day then, as the owner. What is forgotten can't be told from what never
came, so batches of earlier times are refused from then on: a repeated one of a numbered stream is
known still as a duplicate, any other goes to quarantine as expired. The horizon is only ever
raised; --retention off keeps what is there now. The rows in datasets' tables stay, and so do the
ids of files.

--roles prints SQL for a database administrator, who may create roles, and does nothing: an
owner for init and dataset apply, a loader that can change nothing but what it loads, a reader.
--roles=create runs that SQL, and then init. Once the roles are there, init and dataset apply give
them what they need, and no more.`,
		Example: `  tallyman init
  DATABASE_URL=postgres://loader@db.example/warehouse tallyman init
  tallyman init --retention 400d
  tallyman init --roles > roles.sql
  tallyman init --roles=create
  tallyman init --rename-target --warehouse-target staging`,
		Args: cobra.NoArgs,
	}
	rename := cmd.Flags().Bool("rename-target", false, "give the warehouse the configured name, if it is a copy of another")
	roles := cmd.Flags().String("roles", "", "`print or create` roles for owner, loader and reader")
	cmd.Flags().Lookup("roles").NoOptDefVal = rolesPrint
	retention := cmd.Flags().String("retention", "", "how long the ledger keeps batches from now on: days like `400d`, months like 13mo, or off")
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
		options := postgres.InitOptions{RenameTarget: *rename, Roles: *roles == rolesCreate}
		if *retention != "" {
			keep, err := postgres.ParseRetention(*retention)
			if err != nil {
				return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("--retention: %w", err)}
			}
			options.Retention = &keep
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
		report, err := w.Init(cmd.Context(), options)
		if err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, initJSON(report))
		}
		return printInit(p, report)
	}
	return cmd
}

// initializedJSON is what init found and did.
type initializedJSON struct {
	postgres.InitReport
	LedgerHorizon *time.Time `json:"ledger_horizon"` // null: none, batches of any age load
	LedgerEnd     time.Time  `json:"ledger_end"`
}

func initJSON(report postgres.InitReport) initializedJSON {
	j := initializedJSON{InitReport: report, LedgerEnd: report.Window.End}
	if !report.Window.Horizon.IsZero() {
		j.LedgerHorizon = &report.Window.Horizon
	}
	return j
}

// printInit tells what init found and did.
func printInit(p *program, report postgres.InitReport) error {
	switch report.From {
	case report.To:
		fmt.Fprintf(p.stdout, "warehouse %s: the schema is up to date (version %d)\n", report.Target, report.To)
	default:
		fmt.Fprintf(p.stdout, "warehouse %s: brought the schema from version %d to %d\n", report.Target, report.From, report.To)
	}
	fmt.Fprintf(p.stdout, "made %d partitions of the ledger; it takes batches up to %s\n",
		len(report.Partitions), report.Window.End.Format(time.DateOnly))
	if !report.Window.Horizon.IsZero() {
		fmt.Fprintf(p.stdout, "dropped %d partitions of the ledger; it takes batches from %s on (retention %s)\n",
			len(report.Forgotten), report.Window.Horizon.Format(time.DateOnly), report.Retention)
	}
	if report.Held != "" {
		fmt.Fprintf(p.stdout, "%s is in use for too long: its batches are refused already, and the next tallyman init goes on with it\n", report.Held)
	}
	return printTablePartitions(p, report)
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
