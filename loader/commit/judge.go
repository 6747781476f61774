package commit

import (
	"time"

	"tallyman/loader/consume"
	"tallyman/schema"
	"tallyman/sink"
)

// NewJudge returns what decides about a message of a revision outside of a
// load, as a Handler decides about what it reads: for a redrive from quarantine.
// A batch time may be ahead of the clock by skew. The judge is safe for
// concurrent use.
func NewJudge(r sink.Revision, skew time.Duration) (sink.Judge, error) {
	d, err := newDecoder(r, skew, time.Now)
	if err != nil {
		return nil, err
	}
	return d.message, nil
}

// Judge decides about a message as about one that was read.
func (h *Handler) Judge(m sink.Message, by *schema.Manifest) (*sink.Element, *sink.Dead) {
	return h.decoder.message(m, by)
}

// message judges a message that is no longer a record of a log.
func (d *decoder) message(m sink.Message, by *schema.Manifest) (*sink.Element, *sink.Dead) {
	if by != nil {
		_ = d.add(by) // with a type that this release can't read it stays unknown
	}
	return d.judge(&consume.Record{Message: m})
}
