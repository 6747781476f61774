package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tallyman/loader/job"
)

// Config is what the API works with.
type Config struct {
	// Ledger has the jobs. Required.
	Ledger *job.Ledger
	// Resolve begins the deployment of a job of a kind with what it is about: a revision
	// of a dataset, or if that is 0, the one that the kind is about by itself. Required.
	Resolve func(kind, dataset string, revision int64) (job.Deployment, error)
	// Revisions are those of the warehouse. Required.
	Revisions Revisions
	// StatusOf returns the HTTP status of an error that is not the ledger's. Defaults
	// to 503, an outage.
	StatusOf func(error) int
	// Admit refuses a request, or says who makes it. Defaults to everybody.
	Admit func(r *http.Request) error
}

// Revision is a revision of a dataset.
type Revision struct {
	ID         int64     `json:"revision_id"`
	Dataset    string    `json:"dataset"`
	State      string    `json:"state" enum:"building,active,standby,retired"`
	Table      string    `json:"table"`
	Hash       string    `json:"manifest_hash"`
	CreatedAt  time.Time `json:"created_at"`
	ActiveJobs int64     `json:"active_jobs"`
}

// Revisions makes, activates and drops revisions.
type Revisions interface {
	// List returns those of a dataset; empty: of all.
	List(ctx context.Context, dataset string) ([]Revision, error)
	// Create makes one, in a table of that name; empty: in one that is named by itself.
	Create(ctx context.Context, dataset, table string) (int64, error)
	// Activate has readers see one, and returns the one that they saw before.
	Activate(ctx context.Context, dataset string, id int64, o ActivateOptions) (int64, error)
	// Drop drops one.
	Drop(ctx context.Context, dataset string, id int64) error
}

// ActivateOptions say how to activate a revision.
type ActivateOptions struct {
	Uncovered bool  `json:"uncovered,omitempty" doc:"Even if readers lose batches by it"`
	WaitMS    int64 `json:"wait_ms,omitempty" minimum:"0" maximum:"20000" doc:"How long it may take to catch up with the active one" default:"5000"`
}

// Document is where the OpenAPI document is.
const Document = "/v1/openapi.json"

// bodyLimit bounds the body of a request, in bytes.
const bodyLimit = 64 << 10

// Handler returns the API, below /v1/.
func Handler(c Config) http.Handler {
	mux := http.NewServeMux()
	s := &server{Config: c}
	s.register(humago.New(mux, document()))
	guarded := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.Admit != nil && r.URL.Path != Document {
			if err := c.Admit(r); err != nil {
				refuse(w, err)
				return
			}
		}
		guarded.ServeHTTP(w, r)
	})
}

// document describes the API as far as its operations do not.
func document() huma.Config {
	c := huma.DefaultConfig("Tallyman jobs", "1")
	c.Info.Description = "Deploys, stops and looks at jobs, and makes, activates and drops revisions of datasets."
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "/v1/openapi", "", ""
	c.CreateHooks = nil // they add a link to a schema to each answer
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	c.Security = []map[string][]string{{"token": {}}, {}}
	return c
}

// Refusal is an error with its own status, as Admit may return it.
type Refusal struct {
	Status int
	Text   string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Text }

// refuse answers with a problem.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusForbidden
	if r := (*Refusal)(nil); errors.As(err, &r) {
		status = r.Status
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: err.Error()}) // the client may be gone
}

// server answers.
type server struct{ Config }

// fail makes an error a problem.
func (s *server) fail(err error) error {
	var (
		conflict *job.Conflict
		target   *job.TargetError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict):
		var details []error
		for _, d := range conflict.Differences {
			details = append(details, &huma.ErrorDetail{Location: "body.options." + d.Option, Message: "the job has another value", Value: d.Have})
		}
		return huma.Error409Conflict(err.Error(), details...)
	case errors.As(err, &target) && target.Gone:
		return huma.Error409Conflict(err.Error())
	case errors.Is(err, job.ErrUnknown), errors.As(err, &target):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, job.ErrMalformed), errors.Is(err, job.ErrUnknownKind):
		return huma.Error400BadRequest(err.Error())
	case job.Refused(err):
		return huma.Error409Conflict(err.Error())
	case s.StatusOf != nil:
		return huma.NewError(s.StatusOf(err), err.Error())
	}
	return huma.Error503ServiceUnavailable(err.Error())
}
