package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/bearer"
	"tallyman/loader/job"
	"tallyman/loader/job/api"
	"tallyman/schema"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// jobsAPI is the API of jobs over HTTP.
func jobsAPI(cfg settings.Config, w *postgres.Warehouse, l *job.Ledger) (http.Handler, error) {
	admit, err := admission(cfg)
	if err != nil {
		return nil, err
	}
	return api.Handler(api.Config{
		Ledger: l, Revisions: revisionsAPI{w}, Admit: admit,
		StatusOf: func(err error) int { return statusOf(ledgerError(w, err)) },
		Resolve: func(kind, dataset string, revision int64) (job.Deployment, error) {
			d, err := schema.ParseDataset(dataset)
			return job.Deployment{Resolve: resolveFor(w, kind, d, revision), Find: findFor(kind, d, revision)}, err
		},
	}), nil
}

// statusOf returns the HTTP status of an error of the warehouse.
func statusOf(err error) int {
	var (
		lacks   *postgres.UncoveredError
		classed *sink.Error
	)
	switch {
	case errors.Is(err, postgres.ErrNoRevision):
		return http.StatusNotFound
	case errors.Is(err, postgres.ErrWrongRevision), errors.As(err, &lacks):
		return http.StatusConflict
	case errors.As(err, &classed) && classed.Reason == "no_privilege":
		return http.StatusForbidden // it takes the owner's role
	case sink.ClassOf(err) == sink.Retryable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// admission decides who may ask. With tokens, whoever has one; without, anybody
// may look, and requests that were sent on this machine may change things.
func admission(cfg settings.Config) (func(*http.Request) error, error) {
	if cfg.AdminTokenFile == "" {
		return func(r *http.Request) error {
			if r.Method == http.MethodGet || r.Method == http.MethodHead || fromHere(r) {
				return nil
			}
			return &api.Refusal{Status: http.StatusForbidden, Text: "only requests from this machine, to its own address, may change anything: set admin.token_file, and send one of its tokens"}
		}, nil
	}
	tokens, err := bearer.Read(cfg.AdminTokenFile)
	if err != nil {
		return nil, settings.Faults{err.Error()}
	}
	return func(r *http.Request) error {
		given, ok := bearer.Given(r)
		if ok {
			_, ok = tokens.Client(given)
		}
		if !ok {
			return &api.Refusal{Status: http.StatusUnauthorized, Text: "send Authorization: Bearer and a token of admin.token_file"}
		}
		return nil
	}, nil
}

// fromHere says that a request came from this machine and was meant for it: a page
// that a browser here shows may have it send requests to other names of this one.
func fromHere(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	host, _, split := net.SplitHostPort(r.Host)
	if split != nil {
		host = r.Host
	}
	to, meant := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && from.Addr().Unmap().IsLoopback() && (host == "localhost" || meant == nil && to.IsLoopback())
}

// revisionsAPI are the warehouse's revisions as the API has them.
type revisionsAPI struct{ w *postgres.Warehouse }

// List implements api.Revisions.
func (a revisionsAPI) List(ctx context.Context, dataset string) ([]api.Revision, error) {
	all, err := a.w.Revisions(ctx, dataset)
	var found []api.Revision
	for _, r := range all {
		found = append(found, api.Revision{ID: r.ID, Dataset: r.Dataset, State: string(r.State), Table: r.Table, Hash: r.Hash, CreatedAt: r.CreatedAt, ActiveJobs: r.Jobs})
	}
	return found, err
}

// pathDataset reads a dataset's name; one that is malformed is not there.
func pathDataset(dataset string) (schema.Dataset, error) {
	d, err := schema.ParseDataset(dataset)
	if err != nil {
		err = fmt.Errorf("%w: %w", postgres.ErrNoRevision, err)
	}
	return d, err
}

// Create implements api.Revisions.
func (a revisionsAPI) Create(ctx context.Context, dataset, table string) (int64, error) {
	d, err := pathDataset(dataset)
	if err != nil {
		return 0, err
	}
	r, err := a.w.CreateRevision(ctx, postgres.NewRevision{Dataset: d, Table: table})
	return r.ID, err
}

// Activate implements api.Revisions.
func (a revisionsAPI) Activate(ctx context.Context, dataset string, id int64, o api.ActivateOptions) (int64, error) {
	d, err := pathDataset(dataset)
	if err != nil {
		return 0, err
	}
	return a.w.Activate(ctx, postgres.Activation{Dataset: d, Revision: id, Uncovered: o.Uncovered, Wait: max(time.Duration(o.WaitMS)*time.Millisecond, time.Millisecond)})
}

// Drop implements api.Revisions.
func (a revisionsAPI) Drop(ctx context.Context, dataset string, id int64) error {
	d, err := pathDataset(dataset)
	if err != nil {
		return err
	}
	return a.w.DropRevision(ctx, d, id)
}
