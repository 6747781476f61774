package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/source"
	"tallyman/source/intake"
)

// kind is a kind of problem. Its name is part of the type, and stays.
type kind string

// The kinds of problem.
const (
	badID             kind = "bad-id"
	badBody           kind = "bad-body"
	unauthenticated   kind = "unauthenticated"
	crossOrigin       kind = "cross-origin"
	notFound          kind = "not-found"
	noDataset         kind = "no-such-dataset"
	methodNotAllowed  kind = "method-not-allowed"
	slowRequest       kind = "slow-request"
	idConflict        kind = "id-conflict"
	otherManifest     kind = "other-manifest"
	tooLarge          kind = "too-large"
	badMediaType      kind = "unsupported-media-type"
	badEncoding       kind = "unsupported-encoding"
	badRows           kind = "bad-rows"
	tooManyRequests   kind = "too-many-requests"
	busy              kind = "busy"
	closing           kind = "closing"
	outcomeUnknown    kind = "outcome-unknown"
	diskFull          kind = "disk-full"
	internal          kind = "internal"
	typePrefix             = "urn:tallyman:problem:"
	shortly                = time.Second
	whenThereIsRoom        = 30 * time.Second
	problemJSON            = "application/problem+json"
	secondsRoundingUp      = float64(time.Second)
)

// fact is what is always so about a kind of problem.
type fact struct {
	status int
	title  string
}

// facts returns the kinds of problem. It is what answers and the OpenAPI
// document are made from.
func facts() map[kind]fact {
	return map[kind]fact{
		badID:            {http.StatusBadRequest, "The Idempotency-Key is not one id of an accepted version, with its time"},
		badBody:          {http.StatusBadRequest, "The body can't be read"},
		unauthenticated:  {http.StatusUnauthorized, "A bearer token or a client certificate is needed"},
		crossOrigin:      {http.StatusForbidden, "Another site's page made this request"},
		notFound:         {http.StatusNotFound, "There is nothing at this path"},
		noDataset:        {http.StatusNotFound, "The dataset is not served here"},
		methodNotAllowed: {http.StatusMethodNotAllowed, "The method is not allowed at this path"},
		slowRequest:      {http.StatusRequestTimeout, "The request took too long to come in"},
		idConflict:       {http.StatusConflict, "The id was already used for other content"},
		otherManifest:    {http.StatusConflict, "The rows were encoded by another manifest"},
		tooLarge:         {http.StatusRequestEntityTooLarge, "The request is over a limit"},
		badMediaType:     {http.StatusUnsupportedMediaType, "The content type is not taken"},
		badEncoding:      {http.StatusUnsupportedMediaType, "The content encoding is not taken"},
		badRows:          {http.StatusUnprocessableEntity, "A row can't be loaded"},
		tooManyRequests:  {http.StatusTooManyRequests, "The client makes too many requests"},
		busy:             {http.StatusServiceUnavailable, "Too much is being worked on"},
		closing:          {http.StatusServiceUnavailable, "The daemon is closing"},
		outcomeUnknown:   {http.StatusGatewayTimeout, "Whether the rows are durable is not known"},
		diskFull:         {http.StatusInsufficientStorage, "The journal's disk is full"},
		internal:         {http.StatusInternalServerError, "Something is wrong with the daemon"},
	}
}

// problem is a refusal, as RFC 9457 has it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Line or Row, from 1, and Column name what of the body is refused.
	Line   int64  `json:"line,omitempty"`
	Row    int64  `json:"row,omitempty"`
	Column string `json:"column,omitempty"`
	// Limit is the bound that was exceeded, in bytes, rows or requests.
	Limit int64 `json:"limit,omitempty"`

	kind   kind
	header http.Header // what the answer says besides
}

// Error returns the detail.
func (p *problem) Error() string { return p.Detail }

func newProblem(k kind, format string, args ...any) *problem {
	f := facts()[k]
	return &problem{
		Type: typePrefix + string(k), Title: f.title, Status: f.status, Detail: fmt.Sprintf(format, args...),
		kind: k, header: http.Header{},
	}
}

// with gives the answer a header.
func (p *problem) with(name, value string) *problem {
	p.header.Set(name, value)
	return p
}

// after says when to try again, in whole seconds.
func (p *problem) after(wait time.Duration) *problem {
	seconds := max(1, int(math.Ceil(float64(wait)/secondsRoundingUp)))
	return p.with("Retry-After", strconv.Itoa(seconds))
}

// over names the limit that was exceeded.
func (p *problem) over(limit int64) *problem {
	p.Limit = limit
	return p
}

// write answers with the problem.
func (p *problem) write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	writeJSON(w, problemJSON, p.Status, p)
}

// writeJSON answers with v. A client that is gone is nobody's concern.
func writeJSON(w http.ResponseWriter, contentType string, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// problemOf says what an error of reading, decoding or appending is to the client.
func problemOf(err error) *problem {
	var known *problem
	var line *intake.RowError
	var row *rows.Error
	var refused *batch.Refusal
	var p *problem
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &line):
		p = newProblem(badRows, "%v", line)
		p.Line, p.Column = line.Line, line.Column
	case errors.As(err, &row):
		p = newProblem(badRows, "%v", row)
		p.Row, p.Column = int64(row.Row), row.Column
	case errors.As(err, &refused):
		p = newProblem(badID, "%v", refused)
	case errors.Is(err, source.ErrIDConflict):
		p = newProblem(idConflict, "%v: other rows, or another time, need an id of their own", source.ErrIDConflict)
	case errors.Is(err, source.ErrTooLarge):
		p = newProblem(tooLarge, "%v", err)
	case errors.Is(err, source.ErrDiskFull):
		p = newProblem(diskFull, "%v", source.ErrDiskFull).after(whenThereIsRoom)
	case errors.Is(err, source.ErrClosed):
		p = newProblem(closing, "send it to another daemon, or again once this one has started").after(shortly)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		p = newProblem(outcomeUnknown, "the disk did not answer in time; a batch sent again under the same id is taken once").after(shortly)
	default:
		p = newProblem(internal, "see the daemon's log")
	}
	return p
}
