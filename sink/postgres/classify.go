package postgres

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// The reasons that a Misconfigured or Retryable error may carry: stable names
// for metrics and logs.
const (
	reasonNotInitialised  batch.Reason = "not_initialised"
	reasonTableMissing    batch.Reason = "table_missing"
	reasonColumnMissing   batch.Reason = "column_missing"
	reasonNoPrivilege     batch.Reason = "no_privilege"
	reasonColumnMismatch  batch.Reason = "column_mismatch"
	reasonFewerRowsCopied batch.Reason = "fewer_rows_copied"
	reasonNoPartition     batch.Reason = "no_partition"
	reasonSequenceUsedUp  batch.Reason = "sequence_used_up"
	reasonLedgerWindow    batch.Reason = "ledger_window"
	reasonUnexpected      batch.Reason = "unexpected"
	reasonProgramming     batch.Reason = "programming_error"
	reasonInDoubt         batch.Reason = "in_doubt"
	reasonOutage          batch.Reason = "outage"
	reasonLocked          batch.Reason = "locked"
	reasonTableFull       batch.Reason = "table_full"
)

// phase is the part of the work in which an error came: only where the rows
// themselves are read can their content be at fault.
type phase uint8

const (
	inCatalog phase = iota // catalog, positions, set-up
	inClaim                // positions, ledger, locks, column check
	inCopy                 // the rows
	inFinish               // quarantine and COMMIT: deferred constraints speak here
)

// target is the table that a group goes to, to tell its constraints from ours.
type target struct {
	table     schema.Table
	columns   map[string]bool
	partition schema.Table // of the table, that an error names; zero: none
	domain    string       // of a manifest's column, that an error names; empty: none
}

func targetOf(table schema.Table, manifests ...*schema.Manifest) target {
	t := target{table: table, columns: map[string]bool{}}
	for _, m := range manifests {
		for _, c := range m.Columns {
			t.columns[c.Name] = true
		}
	}
	return t
}

// owns says that pg names the target table and a column of the manifest or a
// constraint. A required column that no manifest fills, or a table without a
// partition for the row, is a fault of the table.
func (t target) owns(pg *pgconn.PgError) bool {
	named := schema.Table{Schema: pg.SchemaName, Name: pg.TableName}
	switch {
	case pg.TableName == "":
		return t.domain != "" && pg.DataTypeName == t.domain
	case named == t.table, named == t.partition:
		return pg.ConstraintName != "" || t.columns[pg.ColumnName]
	default:
		return false
	}
}

// verdict is what a rule says of the errors that it matches.
type verdict struct {
	class  sink.Class
	reason batch.Reason
	grace  bool
}

// rule matches errors by SQLSTATE. The first rule that matches decides.
type rule struct {
	name    string
	codes   []string // whole codes, or prefixes of them
	phases  []phase  // empty: all
	matches func(pg *pgconn.PgError, t target) bool
	verdict verdict
}

func isLedger(pg *pgconn.PgError, _ target) bool {
	return pg.SchemaName == "tallyman" && strings.HasPrefix(pg.TableName, "loaded_elements")
}

func isOurs(pg *pgconn.PgError, _ target) bool {
	return strings.Contains(pg.Message, `"tallyman.`) || strings.Contains(pg.Message, `"tallyman"`)
}

// isUnplaced matches a row for which a partitioned table has no partition: the
// check violation that names a table and no constraint.
func isUnplaced(pg *pgconn.PgError, _ target) bool {
	return pg.TableName != "" && pg.ConstraintName == ""
}

// isServers says that the server itself found a fault in the statement. A pooler
// speaks for a server that it lost, under codes of its choice, but as FATAL or
// without the severity that no language setting translates.
func isServers(pg *pgconn.PgError, _ target) bool { return pg.SeverityUnlocalized == "ERROR" }

// isFull tells a relation that can't grow from rows over a limit, by the
// function of the server that says so: messages are translated.
func isFull(pg *pgconn.PgError, _ target) bool {
	return strings.HasPrefix(pg.Routine, "ExtendBufferedRel") || pg.Routine == "mdextend" || pg.Routine == "mdzeroextend"
}

func isTargets(pg *pgconn.PgError, t target) bool { return t.owns(pg) }

// rules returns the table of DBMS errors. What no rule matches stops the
// dataset: a closed list decides about quarantine, never an open one.
// Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
func rules() []rule {
	rows := []phase{inCopy, inFinish}
	return []rule{
		{"time outside the ledger's window", []string{"23514"}, []phase{inClaim}, isLedger, verdict{class: sink.Retryable, reason: reasonLedgerWindow}},
		{"foreign key of the table", []string{"23503"}, rows, isTargets, verdict{class: sink.BadData, reason: batch.Constraint, grace: true}},
		{"other constraints of the table", []string{"23502", "23505", "23514"}, rows, isTargets, verdict{class: sink.BadData, reason: batch.Constraint}},
		{"no partition of the table", []string{"23514"}, rows, isUnplaced, verdict{class: sink.Misconfigured, reason: reasonNoPartition}},
		{"sequence of the table used up", []string{"2200H"}, rows, nil, verdict{class: sink.Misconfigured, reason: reasonSequenceUsedUp}},
		{"value out of range or malformed", []string{"22"}, rows, nil, verdict{class: sink.BadData, reason: batch.Rejected}},
		{"table at its largest size", []string{"54000"}, rows, isFull, verdict{class: sink.Misconfigured, reason: reasonTableFull}},
		{"over a limit of the server", []string{"54"}, rows, nil, verdict{class: sink.BadData, reason: batch.Rejected}},
		{"raised by a trigger", []string{"P0001"}, rows, nil, verdict{class: sink.BadData, reason: batch.Rejected}},
		{"field shorter than its type", []string{"08P01"}, []phase{inCopy}, isServers, verdict{class: sink.BadData, reason: batch.Rejected}},
		{"statement time-out", []string{"57014"}, nil, nil, verdict{class: sink.TooSlow}},
		{"lock time-out", []string{"55P03"}, nil, nil, verdict{class: sink.Retryable, reason: reasonLocked}},
		{"connection", []string{"08"}, nil, nil, verdict{class: sink.Retryable, reason: reasonOutage}},
		{"resources", []string{"53"}, nil, nil, verdict{class: sink.Retryable, reason: reasonOutage}},
		{"server going down or coming up", []string{"57P0"}, nil, nil, verdict{class: sink.Retryable, reason: reasonOutage}},
		{"read-only server", []string{"25006"}, nil, nil, verdict{class: sink.Retryable, reason: reasonOutage}},
		{"serialization, deadlock", []string{"40"}, nil, nil, verdict{class: sink.Retryable, reason: reasonOutage}},
		{"object in use", []string{"55"}, nil, nil, verdict{class: sink.Retryable, reason: reasonOutage}},
		{"transaction left idle or too long", []string{"25P03", "25P04"}, nil, nil, verdict{class: sink.Retryable, reason: reasonOutage}},
		{"authorization", []string{"28"}, nil, nil, verdict{class: sink.Retryable, reason: "authorization"}},
		{"no such database", []string{"3D"}, nil, nil, verdict{class: sink.Retryable, reason: "database_missing"}},
		{"system error", []string{"58"}, nil, nil, verdict{class: sink.Retryable, reason: "server_fault"}},
		{"corrupted", []string{"XX001", "XX002"}, nil, nil, verdict{class: sink.Retryable, reason: "server_fault"}},
		{"own schema missing", []string{"42P01", "3F000", "42703"}, nil, isOurs, verdict{class: sink.Misconfigured, reason: reasonNotInitialised}},
		{"table missing", []string{"42P01", "3F000"}, nil, nil, verdict{class: sink.Misconfigured, reason: reasonTableMissing}},
		{"not a table any more", []string{"42809"}, []phase{inClaim}, nil, verdict{class: sink.Misconfigured, reason: reasonTableUnfit}},
		{"column missing", []string{"42703"}, nil, nil, verdict{class: sink.Misconfigured, reason: reasonColumnMissing}},
		{"no privilege", []string{"42501"}, nil, nil, verdict{class: sink.Misconfigured, reason: reasonNoPrivilege}},
	}
}

func (r rule) covers(p phase, t target, pg *pgconn.PgError) bool {
	code := false
	for _, c := range r.codes {
		code = code || strings.HasPrefix(pg.Code, c)
	}
	here := len(r.phases) == 0
	for _, q := range r.phases {
		here = here || p == q
	}
	return code && here && (r.matches == nil || r.matches(pg, t))
}

// judge finds the verdict on an error of the server.
func judge(p phase, t target, pg *pgconn.PgError) verdict {
	for _, r := range rules() {
		if r.covers(p, t, pg) {
			return r.verdict
		}
	}
	return verdict{class: sink.Misconfigured, reason: reasonUnexpected}
}

// classify gives err its class and says in which step it came. An error that
// is not the server's is one of the network or of a time limit: Retryable. No
// error stays none.
func classify(step string, p phase, t target, err error) error {
	if err == nil {
		return nil
	}
	var classed *sink.Error
	if errors.As(err, &classed) {
		return err
	}
	wrapped := fmt.Errorf("%s: %w", step, err)
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		v := judge(p, t, pg)
		return &sink.Error{Class: v.class, Reason: v.reason, Grace: v.grace, Err: fmt.Errorf("%s: %w", step, describe(pg))}
	}
	if isOwnMistake(err) {
		return &sink.Error{Class: sink.Misconfigured, Reason: reasonProgramming, Err: wrapped}
	}
	return &sink.Error{Class: sink.Retryable, Reason: reasonOutage, Err: withAdvice(wrapped)}
}

// withAdvice says what to change where the server's certificate is not trusted.
func withAdvice(err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("%w; set sslrootcert (PGSSLROOTCERT) to the file of the authority that signed the server's certificate", err)
	case errors.As(err, &name):
		return fmt.Errorf("%w; connect by a name that the server's certificate is for", err)
	case errors.As(err, &invalid):
		return fmt.Errorf("%w; renew the server's certificate, or set this machine's clock right", err)
	default:
		return err
	}
}

// isOwnMistake tells what never reached the network: an argument that does not
// encode, a row that does not scan. A statement that could not be prepared did
// reach it: what the server says of that is judged before, and the rest is an
// outage. Only the text of pgx's error tells the two apart.
func isOwnMistake(err error) bool {
	var (
		pre  pgx.ErrPreprocessingBatch
		scan pgx.ScanArgError
	)
	return errors.As(err, &scan) || errors.As(err, &pre) && strings.HasPrefix(pre.Error(), "error preprocessing batch (build)")
}

// serverError is an error of the server with what it says beside the message.
type serverError struct{ *pgconn.PgError }

func describe(pg *pgconn.PgError) error { return serverError{pg} }

// Error returns message, SQLSTATE, and detail, place and hint as far as there
// are, on one line. The server quotes values and names as they are, so what
// would move a terminal's cursor is escaped here, once for logs, probes and
// quarantine.
func (e serverError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (SQLSTATE %s)", e.Message, e.Code)
	for _, part := range []string{e.Detail, e.Where, e.Hint} {
		if part != "" {
			b.WriteString("; " + part)
		}
	}
	return oneLine(b.String())
}

// oneLine escapes everything in s that a terminal would not show as it is.
func oneLine(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == ' ' || unicode.IsGraphic(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// Unwrap returns the server's error.
func (e serverError) Unwrap() error { return e.PgError }
