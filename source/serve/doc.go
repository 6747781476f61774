// Package serve takes rows over HTTP for sources of this process: the daemon
// behind which programs that can't link the library, or keep no disk, append.
//
//	POST /v1/datasets/{ns}/{name}/batches  one batch, under the caller's id or a new one
//	POST /v1/datasets/{ns}/{name}/rows     rows, which join the open batch
//	GET  /v1/datasets/{ns}/{name}          what is taken for a dataset
//	GET  /v1/openapi.json                  all of this as an OpenAPI document
//
// # What an answer means
//
//   - 202: the rows are in the journal and fsynced, as after source.Append.
//   - 504, or no answer: unknown. The same batch again, under the same id, is
//     safe, and is answered as the first time. Rows without an id may be doubled.
//   - any other: nothing of the request was taken, unless the problem says so.
//     429, 503 and 507 say in Retry-After when to try again.
//
// Rows are decoded and checked here, so that a row that can't be loaded is told
// to whoever sent it. Problems are RFC 9457's, with a type for each kind.
//
// # Limits
//
// What a client may cost is bounded: header and body by size and time, a
// decompressed body by the same size, rows, requests at the same time, requests
// per second and client, and the memory that all requests together hold. What
// exceeds a bound is refused with the bound in the problem; nothing waits for room.
//
// # Who may post
//
// Bearer tokens from a file, or client certificates, or both; without either
// everybody who reaches the listener. Token file and certificates are looked at
// once a second while there are requests, and read again when they changed; a
// new file that can't be read leaves the old one's content in force. Requests that a
// browser makes for another site are refused.
package serve
