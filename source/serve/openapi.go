package serve

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"tallyman/schema/batch"
)

// object is a JSON object of the document.
type object = map[string]any

// openapi answers with the document.
func (d *Daemon) openapi(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, openapiJSON, http.StatusOK, document())
	return nil
}

// openapiJSON is the document's media type. (The more exact
// application/vnd.oai.openapi+json is not registered, and tools don't know it.)
const openapiJSON = "application/json"

// document returns the OpenAPI description of what is served.
func document() object {
	paths := object{}
	for _, r := range routes() {
		item, ok := paths[r.path].(object)
		if !ok {
			item = object{}
			if strings.Contains(r.path, "{") {
				item["parameters"] = []object{pathParameter("namespace"), pathParameter("name")}
			}
			paths[r.path] = item
		}
		item[strings.ToLower(r.method)] = operation(r)
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Tallyman ingest", "version": "1",
			"description": "Appends rows to datasets. 202 means that the rows are on the daemon's disk, and will be loaded exactly once.",
		},
		"paths":    paths,
		"security": []object{{"token": []string{}}, {"certificate": []string{}}, {}},
		"components": object{
			"schemas": schemas(),
			"securitySchemes": object{
				"token":       object{"type": "http", "scheme": "bearer"},
				"certificate": object{"type": "mutualTLS"},
			},
		},
	}
}

func pathParameter(name string) object {
	return object{"name": name, "in": "path", "required": true, "schema": object{"type": "string", "minLength": 1}}
}

func header(name, description string, schema object) object {
	return object{"name": name, "in": "header", "description": description, "schema": schema}
}

func operation(r route) object {
	op := object{"operationId": r.name, "summary": r.summary, "responses": responses(r)}
	if !r.posts {
		return op
	}
	parameters := []object{
		header("Tallyman-Manifest", "The manifest, by its hash, that the rows are meant for; another one is a conflict", object{"type": "string"}),
		header("Content-Encoding", "How the body is compressed", object{"type": "string", "enum": []string{"identity", "gzip", "zstd"}}),
	}
	text := object{"schema": object{"type": "string"}}
	content := object{batch.NDJSON: text, "text/csv": text}
	if r.keyed {
		parameters = append(parameters, header("Idempotency-Key",
			"The batch's unique id, a UUID of version 1, 4, 6, 7 or 8; without it the batch gets a new one", object{"type": "string", "format": "uuid"}),
			header("Tallyman-Batch-Time", "The batch's time, RFC 3339: needed with an id of version 4, and the same whenever that id is sent; of the others it is the time in the id",
				object{"type": "string", "format": "date-time"}))
		content[batch.Native] = object{"schema": object{"type": "string", "format": "binary"}}
	}
	op["parameters"] = parameters
	op["requestBody"] = object{
		"required": true, "content": content,
		"description": "NDJSON: one object a line, with the columns as keys. CSV: as in RFC 4180, with a header that names the columns.",
	}
	return op
}

// responses returns the answers of an operation, by status.
func responses(r route) object {
	schema := object{"type": "object"}
	if r.answer != "" {
		schema = ref(r.answer)
	}
	all := object{strconv.Itoa(r.status): object{
		"description": http.StatusText(r.status), "content": object{"application/json": object{"schema": schema}},
	}}
	types := map[int][]string{}
	for _, k := range append(everybodys(), r.kinds...) {
		f := facts()[k]
		types[f.status] = append(types[f.status], typePrefix+string(k))
	}
	for status, names := range types {
		slices.Sort(names)
		answer := object{
			"description": strings.Join(titles(names), "; "),
			"content": object{problemJSON: object{"schema": object{
				"allOf": []object{ref("Problem"), {"properties": object{"type": object{"enum": names}}}},
			}}},
		}
		if headers := problemHeaders(status); headers != nil {
			answer["headers"] = headers
		}
		all[strconv.Itoa(status)] = answer
	}
	return all
}

// problemHeaders returns the headers that every problem of a status has.
func problemHeaders(status int) object {
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInsufficientStorage, http.StatusGatewayTimeout:
		return object{"Retry-After": object{"description": "Seconds", "required": true, "schema": object{"type": "integer", "minimum": 1}}}
	case http.StatusUnauthorized:
		return object{"WWW-Authenticate": object{"required": true, "schema": object{"type": "string"}}}
	}
	return nil
}

// titles returns the titles of problem types.
func titles(types []string) []string {
	var all []string
	for _, name := range types {
		all = append(all, facts()[kind(strings.TrimPrefix(name, typePrefix))].title)
	}
	return all
}

func ref(schema string) object { return object{"$ref": "#/components/schemas/" + schema} }

// schemas returns what answers look like: the JSON of the types of this package.
func schemas() object {
	count := object{"type": "integer", "minimum": 1}
	text := object{"type": "string"}
	id := object{"type": "string", "format": "uuid"}
	whole := func(properties object, optional ...string) object {
		var required []string
		for _, name := range slices.Sorted(maps.Keys(properties)) {
			if !slices.Contains(optional, name) {
				required = append(required, name)
			}
		}
		return object{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
	}
	return object{
		"AcceptedBatch": whole(object{"id": id, "incarnation": id, "sequence": count, "rows": count}),
		"AcceptedRows": whole(object{
			"rows": count, "batches": object{"type": "array", "minItems": 1, "items": ref("AcceptedBatch")},
		}),
		"Dataset": whole(object{
			"dataset": text, "manifest_hash": text, "max_batch_bytes": count, "max_body_bytes": count, "max_rows": count,
		}),
		"Problem": whole(object{
			"type": object{"type": "string", "format": "uri"}, "title": text, "status": count, "detail": text,
			"line": count, "row": count, "column": text, "limit": count,
		}, "detail", "line", "row", "column", "limit"),
	}
}
