package batch

import "fmt"

// Reason is why a batch was refused: one closed list for code, SQL, metrics and CLI.
type Reason string

// The reasons for which a batch is quarantined.
const (
	NoID          Reason = "no_id"           // no ce_id
	BadID         Reason = "bad_id"          // not a UUID, or of a version that is not accepted
	BadEnvelope   Reason = "bad_envelope"    // another header is missing, malformed or contradicts
	BadDigest     Reason = "bad_digest"      // the digest is missing or does not match
	BadRows       Reason = "bad_rows"        // the rows do not decode, walk or add up to ce_rows
	WrongDataset  Reason = "wrong_dataset"   // a batch of another dataset than the topic's
	NoManifest    Reason = "no_manifest"     // encoded by a manifest that the warehouse doesn't know
	IDConflict    Reason = "id_conflict"     // the id was already used for other content
	FromTheFuture Reason = "from_the_future" // batch time further ahead than the clock skew allowed
	Expired       Reason = "expired"         // batch time before the ledger's horizon
	TooLarge      Reason = "too_large"       // over a size limit, for example when decompressed
	Unreadable    Reason = "unreadable"      // the broker's record can't be decompressed or parsed
	Rejected      Reason = "rejected"        // the warehouse refused a value (range, encoding, trigger)
	Constraint    Reason = "constraint"      // a constraint of the table refused a row
)

// Refusal is the error for a batch that can't be loaded because of its own content.
type Refusal struct {
	Reason Reason
	Detail string // names the thing and what was expected, for a person
	// Batch is what could be read of the envelope; nil where nothing could.
	// Only for a reason other than no_id, bad_id, bad_envelope, bad_digest and
	// bad_rows may its identity be believed.
	Batch *Batch
}

// Error returns the reason and the detail.
func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// quote returns s in double quotes with everything unprintable escaped, cut to
// a length that fits a log line: headers are written by strangers.
func quote(s string) string {
	const limit = 80
	if len(s) > limit {
		return fmt.Sprintf("%q…", s[:limit])
	}
	return fmt.Sprintf("%q", s)
}
