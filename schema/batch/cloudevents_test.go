package batch_test

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/google/go-cmp/cmp"

	"tallyman/schema/batch"
)

// kafkaMessage is a Kafka message for CloudEvents' own library, as its Kafka
// bindings have it: in binary mode attributes and extensions are the headers
// with the prefix ce_, and content-type is the data's.
type kafkaMessage struct {
	headers []batch.Header
	value   []byte
}

func (m *kafkaMessage) ReadEncoding() binding.Encoding { return binding.EncodingBinary }

func (m *kafkaMessage) ReadStructured(context.Context, binding.StructuredWriter) error {
	return binding.ErrNotStructured
}

func (m *kafkaMessage) ReadBinary(_ context.Context, w binding.BinaryWriter) error {
	for _, h := range m.headers {
		var err error
		name, prefixed := strings.CutPrefix(h.Key, "ce_")
		attribute := m.version().Attribute(h.Key)
		if h.Key == "content-type" {
			attribute = m.version().AttributeFromKind(spec.DataContentType)
		}
		switch {
		case attribute != nil:
			err = w.SetAttribute(attribute, string(h.Value))
		case prefixed:
			err = w.SetExtension(name, string(h.Value))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.Key, err)
		}
	}
	return w.SetData(bytes.NewReader(m.value))
}

func (m *kafkaMessage) Finish(error) error { return nil }

func (m *kafkaMessage) version() spec.Version {
	return spec.WithPrefix("ce_").Version("1.0")
}

// GetAttribute and GetExtension are for transformers, of which there are none.

func (m *kafkaMessage) GetAttribute(spec.Kind) (spec.Attribute, any) { return nil, nil }

func (m *kafkaMessage) GetExtension(string) any { return nil }

// A batch is a CloudEvent to those who know nothing of Tallyman, with the two
// liberties that FORMAT.md tells of.
func TestBatchesAreCloudEvents(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).Messages {
		b := parseVector(t, v)
		event, err := binding.ToEvent(t.Context(), &kafkaMessage{b.Headers(), b.Value})
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		source := (&url.URL{Path: b.Source}).EscapedPath() // read as the URI reference that it need not be
		objections := event.Validate()
		if b.Schema != "" { // no absolute URI, and that alone is what is wrong with the event
			if objections == nil || !strings.HasPrefix(objections.Error(), "dataschema: ") || strings.Count(objections.Error(), "\n") > 1 {
				t.Errorf("%s: %v, want that only the dataschema is objected to", v.Name, objections)
			}
		} else if objections != nil {
			t.Errorf("%s: %v", v.Name, objections)
		}
		want := map[string]string{
			"specversion": "1.0", "type": "tallyman.batch.v1", "id": b.ID.String(), "source": source,
			"subject": b.Dataset.String(), "datacontenttype": b.ContentType, "rows": fmt.Sprint(b.Rows),
			"digest": "sha-256=" + b.Digest.String(), "data": string(b.Value),
		}
		got := map[string]string{
			"specversion": event.SpecVersion(), "type": event.Type(), "id": event.ID(), "source": event.Source(),
			"subject": event.Subject(), "datacontenttype": event.DataContentType(), "data": string(event.Data()),
		}
		if b.Schema != "" {
			want["dataschema"], got["dataschema"] = b.Dataset.String()+"@"+b.Schema, event.DataSchema()
		}
		if b.Sequence != 0 {
			want["incarnation"], want["sequence"] = b.Incarnation.String(), fmt.Sprint(b.Sequence)
		}
		if !b.Time.IsZero() {
			want["time"], got["time"] = b.Time.Format(time.RFC3339Nano), event.Time().Format(time.RFC3339Nano)
		}
		for name, value := range event.Extensions() {
			got[name] = fmt.Sprint(value)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", v.Name, diff)
		}
	}
}
