package demo

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// conversions describes the dataset that is made up, in YAML.
//
//go:embed conversions.yaml
var conversions []byte

// batchRows is how many rows a batch has; the last may have fewer.
const batchRows = 500

// servers are the attribution servers that report at the same time.
func servers() []string { return []string{"fra-1", "fra-2", "iad-1", "sin-1"} }

// event is one row: a click, or a conversion.
type event struct {
	id         uuid.UUID
	occurredAt time.Time
	server     string
	campaign   int64
	converted  bool
	revenue    *float64
	attributes *string
}

// generator makes up the events of one server. The same seed and server give
// the same events, whatever the others do.
type generator struct {
	server string
	random *rand.Rand
	now    time.Time
}

func newGenerator(seed uint64, number int) *generator {
	return &generator{
		server: servers()[number],
		random: rand.New(rand.NewPCG(seed, uint64(number))),
		now:    time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// next returns one more event.
func (g *generator) next() event {
	g.now = g.now.Add(time.Duration(1+g.random.IntN(200_000)) * time.Microsecond)
	e := event{id: g.uuid(), occurredAt: g.now, server: g.server, campaign: g.campaign()}
	if e.converted = g.random.IntN(20) == 0; e.converted {
		revenue := float64(g.random.IntN(50_000)) / 100
		e.revenue = &revenue
	}
	if g.random.IntN(10) > 0 {
		attributes := g.attributes()
		e.attributes = &attributes
	}
	return e
}

// uuid returns a random id, of version 4.
func (g *generator) uuid() (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], g.random.Uint64())
	binary.BigEndian.PutUint64(id[8:], g.random.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// campaign is mostly a small number, at times one that a float64 can't hold.
func (g *generator) campaign() int64 {
	switch g.random.IntN(1000) {
	case 0:
		return math.MaxInt64
	case 1:
		return math.MinInt64
	default:
		return int64(g.random.IntN(400))
	}
}

// attributes returns a JSON object, at times with what a careless loader would bend.
func (g *generator) attributes() string {
	pick := func(from ...string) string { return from[g.random.IntN(len(from))] }
	keyword := pick("shoes", "rain coat", "tent", "bicycle")
	if g.random.IntN(50) == 0 {
		keyword = pick("Größe \U0001F45F", "tab\there", "line\nbreak", `back\slash`, `\.`, `\N`, `"quoted"`, "{}")
	}
	quoted, err := json.Marshal(keyword)
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return fmt.Sprintf(`{"country": %q, "device": %q, "keyword": %s, "bid": %d.%02d}`,
		pick("DE", "FR", "US", "SG", "BR"), pick("ios", "android", "web"), quoted, g.random.IntN(9), g.random.IntN(100))
}

// values returns the event as a row of the dataset.
func (e *event) values() []any {
	row := []any{e.id, e.occurredAt, e.server, e.campaign, e.converted, nil, nil}
	if e.revenue != nil {
		row[5] = *e.revenue
	}
	if e.attributes != nil {
		row[6] = *e.attributes
	}
	return row
}

// appendCopy appends the event, as part of a batch, as a line of PostgreSQL's
// text COPY. It shares no code with what encodes the rows for Kafka.
func (e *event) appendCopy(dst []byte, batch uuid.UUID) []byte {
	field := func(s string) { dst = append(append(dst, s...), '\t') }
	field(batch.String())
	field(e.id.String())
	field(e.occurredAt.Format(time.RFC3339Nano))
	field(escapeCopy(e.server))
	field(strconv.FormatInt(e.campaign, 10))
	field(strconv.FormatBool(e.converted))
	if e.revenue != nil {
		field(strconv.FormatFloat(*e.revenue, 'g', -1, 64))
	} else {
		field(`\N`)
	}
	if e.attributes != nil {
		dst = append(dst, escapeCopy(*e.attributes)...)
	} else {
		dst = append(dst, `\N`...)
	}
	return append(dst, '\n')
}

// escapeCopy escapes what COPY's text format gives a meaning to.
func escapeCopy(s string) string {
	if !strings.ContainsAny(s, "\\\t\n\r") {
		return s
	}
	return strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`).Replace(s)
}
