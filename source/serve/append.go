package serve

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/source"
	"tallyman/source/intake"
)

// acceptedBatch is the answer for a durable batch. Streams are told by their
// incarnation.
type acceptedBatch struct {
	ID          uuid.UUID `json:"id"`
	Incarnation uuid.UUID `json:"incarnation"`
	Sequence    uint64    `json:"sequence"`
	Rows        int       `json:"rows"`
}

// acceptedRows is the answer for rows that joined open batches.
type acceptedRows struct {
	Rows    int             `json:"rows"`
	Batches []acceptedBatch `json:"batches"`
}

// served is the answer for what is taken for a dataset.
type served struct {
	Dataset      string `json:"dataset"`
	ManifestHash string `json:"manifest_hash"`
	// MaxBatchBytes bounds the native tuples of one batch.
	MaxBatchBytes int   `json:"max_batch_bytes"`
	MaxBodyBytes  int64 `json:"max_body_bytes"`
	MaxRows       int   `json:"max_rows"`
}

// datasetOf returns the dataset that the path names.
func (d *Daemon) datasetOf(r *http.Request) (*dataset, error) {
	name := schema.Dataset{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	found := d.datasets[name]
	if found == nil {
		return nil, newProblem(noDataset, "%q has no manifest here", name.String())
	}
	return found, nil
}

func (d *Daemon) describe(w http.ResponseWriter, r *http.Request) error {
	set, err := d.datasetOf(r)
	if err != nil {
		return err
	}
	writeJSON(w, "application/json", http.StatusOK, served{
		Dataset: set.name.String(), ManifestHash: set.hash, MaxBatchBytes: set.source.MaxValue(),
		MaxBodyBytes: d.cfg.MaxBody, MaxRows: d.cfg.MaxRows,
	})
	return nil
}

// appendBatch takes one batch.
func (d *Daemon) appendBatch(w http.ResponseWriter, r *http.Request) error {
	set, err := d.datasetOf(r)
	if err != nil {
		return err
	}
	media, err := mediaOf(r)
	if err != nil {
		return err
	}
	id, at, err := idOf(r.Header)
	if err != nil {
		return err
	}
	held := &lease{of: d.memory}
	defer held.free()
	tuples, err := d.tuples(w, r, work{set: set, media: media, id: id, limit: set.source.MaxValue(), held: held})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.cfg.AnswerTimeout)
	defer cancel()
	// The tuples outlive the request in the journal's hands, for a moment.
	accepted, err := set.source.AppendBatchNative(ctx, id, at, tuples)
	if errors.Is(err, source.ErrTooLarge) {
		return batchTooLarge(set)
	}
	if err != nil {
		return err
	}
	d.metrics.rows.Add(float64(accepted.Rows))
	writeJSON(w, "application/json", http.StatusAccepted, acceptedBatch(accepted))
	return nil
}

// appendRows takes rows into open batches.
func (d *Daemon) appendRows(w http.ResponseWriter, r *http.Request) error {
	set, err := d.datasetOf(r)
	if err != nil {
		return err
	}
	media, err := mediaOf(r)
	if err != nil {
		return err
	}
	if media == batch.Native {
		return newProblem(badMediaType, "native tuples name their batch: post them to its path, …/batches")
	}
	if r.Header.Get("Idempotency-Key") != "" || r.Header.Get("Tallyman-Batch-Time") != "" {
		return newProblem(badID, "rows that join a batch have no id of their own: post them to …/batches")
	}
	held := &lease{of: d.memory}
	defer held.free()
	tuples, err := d.tuples(w, r, work{set: set, media: media, limit: int(expansion * d.cfg.MaxBody), held: held})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.cfg.AnswerTimeout)
	defer cancel()
	accepted, err := set.source.AppendNative(ctx, tuples)
	if err != nil {
		p := problemOf(err)
		if p.kind == diskFull && len(tuples) > set.source.MaxValue() {
			p.Detail += "; the rows need more than one batch, and some of them may be durable"
		}
		if p.kind == internal {
			return err
		}
		return p
	}
	answer := acceptedRows{Batches: make([]acceptedBatch, len(accepted))}
	for i, a := range accepted {
		answer.Rows += a.Rows
		answer.Batches[i] = acceptedBatch(a)
	}
	d.metrics.rows.Add(float64(answer.Rows))
	writeJSON(w, "application/json", http.StatusAccepted, answer)
	return nil
}

// work is a body to be made tuples of.
type work struct {
	set   *dataset
	media string
	id    uuid.UUID
	limit int // bytes of tuples
	held  *lease
}

// tuples reads the body and returns its rows.
func (d *Daemon) tuples(w http.ResponseWriter, r *http.Request, to work) ([]byte, error) {
	if hash := r.Header.Get("Tallyman-Manifest"); hash != "" && hash != to.set.hash {
		return nil, newProblem(otherManifest, "%s is served by manifest %s, not by the %s that was asked for", to.set.name, to.set.hash, hash)
	}
	body, err := d.readBody(w, r, to.held)
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return nil, newProblem(badRows, "the body has no rows")
	}
	if to.media == batch.Native {
		return body, nil
	}
	room := len(body) + len(body)/2 // what most rows need
	if err := to.held.add(int64(room)); err != nil {
		return nil, err
	}
	tuples, n, err := to.set.decoder.Decode(to.id, intake.Text{
		Format: formats()[to.media], Data: body, Room: room, MaxRows: d.cfg.MaxRows,
		Grown: func(bytes int) error {
			if bytes > to.limit {
				return batchTooLarge(to.set).over(int64(to.limit))
			}
			more := int64(bytes - room)
			room = max(room, bytes)
			return to.held.add(more)
		},
	})
	if errors.Is(err, intake.ErrTooManyRows) {
		return nil, newProblem(tooLarge, "%v: send them in parts", err).over(int64(d.cfg.MaxRows))
	}
	if err == nil && n == 0 {
		return nil, newProblem(badRows, "the body has no rows")
	}
	return tuples, err
}

func batchTooLarge(set *dataset) *problem {
	limit := set.source.MaxValue()
	return newProblem(tooLarge, "the rows are more than a batch of %s takes, %d bytes as tuples: send them in parts", set.name, limit).over(int64(limit))
}

// formats returns the formats of texts by their content types.
func formats() map[string]intake.Format {
	return map[string]intake.Format{
		batch.NDJSON: intake.NDJSON, "application/ndjson": intake.NDJSON, "application/jsonl": intake.NDJSON,
		"text/csv": intake.CSV,
	}
}

// mediaOf returns the body's content type, which has to be one that is taken.
func mediaOf(r *http.Request) (string, error) {
	refuse := func(why string) error {
		return newProblem(badMediaType, "%s: Content-Type may be %s or text/csv", why, batch.NDJSON).with("Accept-Post", batch.NDJSON+", text/csv, "+batch.Native)
	}
	given := r.Header.Values("Content-Type")
	if len(given) != 1 {
		return "", refuse(fmt.Sprintf("%d content types are given", len(given)))
	}
	media, params, err := mime.ParseMediaType(given[0])
	if err != nil {
		return "", refuse(fmt.Sprintf("%q is no content type", given[0]))
	}
	if _, text := formats()[media]; !text && media != batch.Native {
		return "", refuse(fmt.Sprintf("%q is not taken", media))
	}
	if charset, given := params["charset"]; given && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return "", refuse(fmt.Sprintf("the charset %q is not taken, only utf-8", charset))
	}
	if strings.EqualFold(params["header"], "absent") {
		return "", refuse("CSV needs its header")
	}
	return media, nil
}

// idOf returns the id of a batch and its time: the one key that is given, bare
// or as a structured field's string, with the time that is given beside it, if
// any; or a new id.
func idOf(h http.Header) (uuid.UUID, time.Time, error) {
	keys, times := h.Values("Idempotency-Key"), h.Values("Tallyman-Batch-Time")
	fail := func(format string, args ...any) (uuid.UUID, time.Time, error) {
		return uuid.Nil, time.Time{}, newProblem(badID, format, args...)
	}
	var id uuid.UUID
	var err error
	switch {
	case len(keys) > 1 || len(times) > 1:
		return fail("%d ids and %d times are given", len(keys), len(times))
	case len(keys) == 0 && len(times) == 1:
		return fail("the time %q is given, but no Idempotency-Key that it belongs to", times[0])
	case len(keys) == 0:
		id = batch.NewID()
	default:
		key := strings.TrimSpace(keys[0])
		if bare, quoted := strings.CutPrefix(key, `"`); quoted {
			key = strings.TrimSuffix(bare, `"`)
		}
		if id, err = batch.ParseID(key); err != nil {
			return uuid.Nil, time.Time{}, err
		}
	}
	if len(times) == 0 {
		at, err := batch.TimeOf(id)
		if err != nil {
			return fail("%v: send it as Tallyman-Batch-Time", err)
		}
		return id, at, nil
	}
	var told time.Time
	if err := told.UnmarshalText([]byte(strings.TrimSpace(times[0]))); err != nil {
		return fail("Tallyman-Batch-Time %q is not a time of RFC 3339 with a zone", times[0])
	}
	at, err := batch.TimeWith(id, told)
	return id, at, err
}

// patience is more than an answer takes to be written to a client that reads.
const patience = 10 * time.Second
