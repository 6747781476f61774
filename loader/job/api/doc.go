// Package api is what tallyman job, revision and resync do, over HTTP, with an
// OpenAPI 3.1 document made from the same types, and problems as RFC 9457 has them.
//
// A deployment that makes or schedules a job is answered with 202, one that finds
// it with 200, one that contradicts it with 409, and one about what is not there
// with 404. So is everything else: 202 for a change that others carry out, 200 for
// none.
package api
