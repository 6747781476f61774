package demo

import (
	"context"
	"encoding/json"
	"fmt"

	"tallyman/schema"
)

// File is a file of the user's.
type File struct {
	Path     string // absolute
	Format   string // csv or ndjson
	Null     string // the text of a CSV field that, without quotes, means NULL
	Manifest schema.Manifest
}

// userFile is a file that push processes send.
type userFile struct{ File }

func (f userFile) manifest() (schema.Manifest, error) { return f.Manifest, nil }

// report is what push prints.
type report struct {
	Files []struct {
		Rows    int64 `json:"rows"`
		Batches int64 `json:"batches"`
	} `json:"files"`
}

func (f userFile) send(d *Demo) error {
	p, err := d.start(launch{
		name: "source", finite: true, pipes: true, env: d.environ(),
		args: []string{
			"push", d.manifest.Dataset.String(), f.Path, "--manifest=" + d.manifestFile(), "--format=" + f.Format, "--null=" + f.Null, "--output=json",
		},
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.source = p
	d.mu.Unlock()
	go func() {
		var r report
		if err := json.NewDecoder(p.stdout).Decode(&r); err != nil || len(r.Files) != 1 {
			return // its status and its log say why
		}
		if <-p.done; p.err != nil {
			return
		}
		d.mu.Lock()
		d.said = said{Rows: r.Files[0].Rows, Batches: r.Files[0].Batches, Passes: d.said.Passes + 1}
		d.mu.Unlock()
		d.config.Progress.Sent(r.Files[0].Rows)
	}()
	return nil
}

// sendAgain pushes the file once more; a push that finds everything published
// publishes it again.
func (f userFile) sendAgain(d *Demo) error { return f.send(d) }

// heal pushes once more: the push that is over does not hear what is missing.
func (f userFile) heal(d *Demo) (int, string, error) {
	return 1, "the file is pushed once more", f.send(d)
}

func (f userFile) compare(ctx context.Context, d *Demo) (rows, batches Count, err error) {
	how := "as PostgreSQL's own COPY reads it"
	if f.Format == ndjson {
		how = "as Go's encoding/json reads it"
	}
	d.config.Progress.Note("comparing the file, " + how + ", with the table, by plain SQL")
	conn, err := d.session(ctx)
	if err != nil {
		return rows, batches, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	d.mu.Lock()
	sent := d.said.Batches
	d.mu.Unlock()
	rows, loaded, err := compareFile(ctx, conn, f.File, d.manifest)
	if err != nil {
		return rows, batches, fmt.Errorf("%s: %w", f.Path, err)
	}
	return rows, Count{Sent: sent, Loaded: loaded, Lost: max(0, sent-loaded), Altered: max(0, loaded-sent)}, nil
}
