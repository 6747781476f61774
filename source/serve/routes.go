package serve

import "net/http"

// route is one thing that can be asked for. The mux and the OpenAPI document
// are made from the same list.
type route struct {
	method, path string
	name         string // of the operation
	summary      string
	answer       string // the schema of the answer
	status       int
	posts        bool   // it takes rows
	keyed        bool   // under an id
	kinds        []kind // the problems that it can answer with, besides everybody's
	serve        func(*Daemon, http.ResponseWriter, *http.Request) error
}

// everybody's are the problems that any request may be answered with.
func everybodys() []kind {
	return []kind{unauthenticated, tooManyRequests, busy, internal}
}

// appends are the problems that rows may be answered with.
func appends() []kind {
	return []kind{
		badID, badBody, crossOrigin, noDataset, slowRequest, otherManifest, tooLarge, badMediaType, badEncoding, badRows,
		closing, outcomeUnknown, diskFull,
	}
}

const datasetPath = "/v1/datasets/{namespace}/{name}"

func routes() []route {
	return []route{
		{
			method: http.MethodPost, path: datasetPath + "/batches", name: "appendBatch", answer: "AcceptedBatch", status: http.StatusAccepted,
			summary: "Append one batch, which is loaded once however often it is sent under its id",
			posts:   true, keyed: true, kinds: append(appends(), idConflict),
			serve: (*Daemon).appendBatch,
		},
		{
			method: http.MethodPost, path: datasetPath + "/rows", name: "appendRows", answer: "AcceptedRows", status: http.StatusAccepted,
			summary: "Append rows, which share a batch with those of other requests",
			posts:   true, kinds: appends(),
			serve: (*Daemon).appendRows,
		},
		{
			method: http.MethodGet, path: datasetPath, name: "describeDataset", answer: "Dataset", status: http.StatusOK,
			summary: "What is taken for a dataset", kinds: []kind{noDataset},
			serve: (*Daemon).describe,
		},
		{
			method: http.MethodGet, path: "/v1/openapi.json", name: "openapi", answer: "", status: http.StatusOK,
			summary: "This document",
			serve:   (*Daemon).openapi,
		},
	}
}
