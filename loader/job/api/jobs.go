package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"tallyman/loader/job"
)

// changed is an answer whose status says whether something was changed.
type changed[T any] struct {
	Status int
	Body   T
}

// body is an answer.
type body[T any] struct{ Body T }

// Deployment is a request for a job.
type Deployment struct {
	Kind     string          `json:"kind" example:"load" maxLength:"63" doc:"load, replay or resync"`
	Dataset  string          `json:"dataset" example:"ads/conversions" maxLength:"200" doc:"namespace/name"`
	Revision int64           `json:"revision_id,omitempty" minimum:"1" doc:"Which revision; without it, the active one, or for a resync the one that is being built"`
	Options  json.RawMessage `json:"options,omitempty" doc:"Of the kind; what is left out has its default"`
}

// Jobs is a list of jobs, the newest first.
type Jobs struct {
	Jobs []job.Job `json:"jobs" nullable:"false"`
}

// Events are what happened to a job, in order.
type Events struct {
	Events []job.Event `json:"events" nullable:"false"`
}

// one names a job.
type one struct {
	ID int64 `path:"id" minimum:"1" doc:"The job's id"`
}

// op describes an operation.
func op(method, path, id, summary string, statuses ...int) huma.Operation {
	return huma.Operation{
		Method: method, Path: path, OperationID: id, Summary: summary, MaxBodyBytes: bodyLimit,
		Errors: append(statuses, http.StatusUnauthorized, http.StatusForbidden, http.StatusInternalServerError, http.StatusServiceUnavailable),
	}
}

// accepting adds to an operation the answer to what is carried out by others.
func accepting(o huma.Operation) huma.Operation {
	o.DefaultStatus = http.StatusAccepted
	return o
}

func (s *server) register(a huma.API) {
	huma.Register(a, accepting(op("POST", "/v1/jobs", "deployJob", "Deploy a job: 202 if it was scheduled, 200 if it was there", 400, 404, 409)), s.deploy)
	huma.Register(a, op("GET", "/v1/jobs", "listJobs", "List jobs, or find the one of a key", 400, 404), s.list)
	huma.Register(a, op("GET", "/v1/jobs/{id}", "showJob", "A job, with its options and who works on it", 404), s.show)
	huma.Register(a, op("GET", "/v1/jobs/{id}/events", "listJobEvents", "What happened to a job", 404), s.events)
	huma.Register(a, accepting(op("POST", "/v1/jobs/{id}/stop", "stopJob", "Stop a job: 202 if it is to stop, 200 if it has ended", 404)), s.stop)
	huma.Register(a, accepting(op("POST", "/v1/jobs/{id}/retry", "retryJob", "Try a job in error again now", 404, 409)), s.retry)
	huma.Register(a, op("DELETE", "/v1/jobs/{id}", "deleteJob", "Delete a job that has ended, with its history", 404, 409), s.delete)
	s.registerRevisions(a)
}

func (s *server) deploy(ctx context.Context, in *struct{ Body Deployment }) (*changed[job.Deployed], error) {
	d, err := s.Resolve(in.Body.Kind, in.Body.Dataset, in.Body.Revision)
	if err != nil {
		return nil, huma.Error400BadRequest(err.Error())
	}
	d.Kind, d.Options = in.Body.Kind, in.Body.Options
	done, err := s.Ledger.Deploy(ctx, d)
	if err != nil {
		return nil, s.fail(err)
	}
	out := &changed[job.Deployed]{Status: http.StatusAccepted, Body: done}
	if done.Deduplicated {
		out.Status = http.StatusOK
	}
	return out, nil
}

func (s *server) list(ctx context.Context, in *struct {
	Dataset string `query:"dataset" maxLength:"200" doc:"Only those of a dataset"`
	Key     string `query:"idempotency_key" maxLength:"100" doc:"Only the one of a key; there being none is a 404"`
}) (*body[Jobs], error) {
	found := Jobs{Jobs: []job.Job{}}
	if in.Key != "" {
		j, err := s.Ledger.Find(ctx, job.Key(in.Key))
		if err != nil {
			return nil, s.fail(err)
		}
		found.Jobs = append(found.Jobs, j)
		return &body[Jobs]{found}, nil
	}
	all, err := s.Ledger.List(ctx)
	if err != nil {
		return nil, s.fail(err)
	}
	for _, j := range all {
		if in.Dataset == "" || j.Dataset == in.Dataset {
			found.Jobs = append(found.Jobs, j)
		}
	}
	return &body[Jobs]{found}, nil
}

func (s *server) show(ctx context.Context, in *one) (*body[job.Description], error) {
	d, err := s.Ledger.Describe(ctx, in.ID, "")
	if err != nil {
		return nil, s.fail(err)
	}
	return &body[job.Description]{d}, nil
}

func (s *server) events(ctx context.Context, in *one) (*body[Events], error) {
	if _, err := s.Ledger.Show(ctx, in.ID); err != nil {
		return nil, s.fail(err)
	}
	all, err := s.Ledger.Events(ctx, in.ID)
	if err != nil {
		return nil, s.fail(err)
	}
	return &body[Events]{Events{all}}, nil
}

func (s *server) stop(ctx context.Context, in *one) (*changed[job.Job], error) {
	return s.change(s.Ledger.StopNow(ctx, in.ID))
}

func (s *server) retry(ctx context.Context, in *one) (*changed[job.Job], error) {
	return s.change(s.Ledger.Retry(ctx, in.ID))
}

func (s *server) change(j job.Job, err error) (*changed[job.Job], error) {
	if err != nil {
		return nil, s.fail(err)
	}
	out := &changed[job.Job]{Status: http.StatusAccepted, Body: j}
	if j.Status.Ended() {
		out.Status = http.StatusOK
	}
	return out, nil
}

func (s *server) delete(ctx context.Context, in *one) (*struct{}, error) {
	return nil, s.fail(s.Ledger.Delete(ctx, in.ID))
}
