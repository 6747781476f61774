package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"tallyman/schema"
)

// cargo is what a demo loads.
type cargo interface {
	// manifest describes it, for embedded servers.
	manifest() (schema.Manifest, error)
	// send starts the source process.
	send(d *Demo) error
	// sendAgain has everything published once more, under the same ids.
	sendAgain(d *Demo) error
	// heal does what a person would after the topic was lost, and returns in how many
	// passes more everything is published, and what that is.
	heal(d *Demo) (passes int, how string, err error)
	// compare says what became of it.
	compare(ctx context.Context, d *Demo) (rows, batches Count, err error)
}

// madeUp are rows that the generator makes up.
type madeUp struct{}

func (madeUp) manifest() (schema.Manifest, error) { return schema.ParseManifest(conversions) }

func (madeUp) send(d *Demo) error {
	args := []string{
		"demo-source", "--manifest=" + d.manifestFile(), "--note=" + d.sentFile(),
		fmt.Sprint("--rows=", d.config.Rows), fmt.Sprint("--seed=", d.config.Seed),
	}
	if d.heals() {
		args = append(args, "--replay-grace="+missingGrace.String())
	}
	var err error
	d.source, err = d.start(launch{name: "source", args: args, env: d.environ(), pipes: true})
	if err != nil {
		return err
	}
	go d.listen(d.source.stdout)
	return nil
}

// listen takes in what the source reports, until its end.
func (d *Demo) listen(source io.Reader) {
	report := json.NewDecoder(source)
	for {
		var s said
		if report.Decode(&s) != nil {
			return
		}
		d.mu.Lock()
		d.said = s
		d.mu.Unlock()
		d.config.Progress.Sent(s.Rows)
	}
}

func (madeUp) sendAgain(d *Demo) error {
	if _, err := fmt.Fprintln(d.source.stdin, "republish"); err != nil {
		return fmt.Errorf("tell the source to publish again: %w", err)
	}
	return nil
}

// heal does nothing: receipts tell the source what is missing.
func (madeUp) heal(*Demo) (int, string, error) {
	return 0, "the source publishes again what it hears is missing", nil
}

func (madeUp) compare(ctx context.Context, d *Demo) (rows, batches Count, err error) {
	d.config.Progress.Note("comparing the generator's file with the table, by plain SQL")
	conn, err := d.session(ctx)
	if err != nil {
		return rows, batches, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return compare(ctx, conn, d.sentFile(), d.table())
}

// sentFile is where the generator notes what it is about to append.
func (d *Demo) sentFile() string { return filepath.Join(d.dir, "sent.copy") }

// settingsSQL lets a comparison have the memory of an embedded server.
const settingsSQL = `
SET work_mem = '512MB';
SET temp_buffers = '256MB';
SET jit = off`

// session opens a session to compare in.
func (d *Demo) session(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, d.DSN())
	if err != nil {
		return nil, fmt.Errorf("connect to compare: %w", err)
	}
	if d.guest != nil {
		return conn, nil
	}
	if _, err := conn.PgConn().Exec(ctx, settingsSQL).ReadAll(); err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("prepare the comparison: %w", err)
	}
	return conn, nil
}
