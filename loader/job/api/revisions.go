package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"
)

// DatasetPath names a dataset in a path.
type DatasetPath struct {
	Namespace string `path:"namespace" maxLength:"100"`
	Name      string `path:"name" maxLength:"100"`
}

// String returns namespace/name.
func (d *DatasetPath) String() string { return d.Namespace + "/" + d.Name }

// NewRevision is a request for a revision.
type NewRevision struct {
	Table string `json:"table,omitempty" maxLength:"63" doc:"The name of its table; without it, the dataset's with a number"`
}

// CreatedRevision is a revision that was made.
type CreatedRevision struct {
	ID int64 `json:"revision_id"`
}

// Activated says what readers see, and what they saw before.
type Activated struct {
	Active int64 `json:"active"`
	Before int64 `json:"active_before"`
}

// RevisionList are revisions, by dataset and id.
type RevisionList struct {
	Revisions []Revision `json:"revisions" nullable:"false"`
}

const revisionsPath = "/v1/datasets/{namespace}/{name}/revisions"

func (s *server) registerRevisions(a huma.API) {
	huma.Register(a, op("GET", "/v1/revisions", "listRevisions", "List revisions, those that were dropped too", 400), s.revisions)
	created := op("POST", revisionsPath, "createRevision", "Make a further revision: an empty table like the active one's", 400, 404, 409)
	created.DefaultStatus = 201
	huma.Register(a, created, s.create)
	huma.Register(a, op("POST", revisionsPath+"/{id}/activate", "activateRevision",
		"Have readers see another revision; 409 if it lacks what the active one has", 400, 404, 409), s.activate)
	huma.Register(a, op("DELETE", revisionsPath+"/{id}", "dropRevision", "Drop a revision that is neither active nor loaded", 404, 409), s.drop)
}

func (s *server) revisions(ctx context.Context, in *struct {
	Dataset string `query:"dataset" maxLength:"200" doc:"Only those of a dataset"`
}) (*body[RevisionList], error) {
	all, err := s.Revisions.List(ctx, in.Dataset)
	if err != nil {
		return nil, s.fail(err)
	}
	if all == nil {
		all = []Revision{}
	}
	return &body[RevisionList]{RevisionList{all}}, nil
}

func (s *server) create(ctx context.Context, in *struct {
	DatasetPath
	Body NewRevision
}) (*body[CreatedRevision], error) {
	id, err := s.Revisions.Create(ctx, in.String(), in.Body.Table)
	if err != nil {
		return nil, s.fail(err)
	}
	return &body[CreatedRevision]{CreatedRevision{id}}, nil
}

func (s *server) activate(ctx context.Context, in *struct {
	DatasetPath
	ID   int64 `path:"id" minimum:"1"`
	Body ActivateOptions
}) (*body[Activated], error) {
	before, err := s.Revisions.Activate(ctx, in.String(), in.ID, in.Body)
	if err != nil {
		return nil, s.fail(err)
	}
	return &body[Activated]{Activated{Active: in.ID, Before: before}}, nil
}

func (s *server) drop(ctx context.Context, in *struct {
	DatasetPath
	ID int64 `path:"id" minimum:"1"`
}) (*struct{}, error) {
	return nil, s.fail(s.Revisions.Drop(ctx, in.String(), in.ID))
}
