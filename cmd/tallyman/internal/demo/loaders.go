package demo

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// loader is one loader process and where it answers.
type loader struct {
	*process
	member  string // what the demo calls it
	name    string // what it is in the warehouse's list of sessions
	admin   string // host:port of its metrics
	refused int64  // batches, as last asked
}

// session is how the loader's connections to the warehouse are named.
func (l *loader) session() string { return "tallyman/" + l.name }

// sessionTimeout keeps the wait after a kill short; the embedded broker allows
// it, which others mostly don't.
const sessionTimeout = 1 * time.Second

// What is lost is missed soon in a demo: nobody wants to wait for a minute.
const (
	missingGrace    = 2 * time.Second
	receiptInterval = 500 * time.Millisecond
)

// heals says whether sources should soon publish again what is missing.
func (d *Demo) heals() bool { return d.config.Chaos && d.config.Sabotage != DeleteRecords }

// startLoader starts a loader process.
func (d *Demo) startLoader(member string) (*loader, error) {
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	l := &loader{member: member, name: member, admin: admin}
	env := d.environ("TALLYMAN_ADMIN_LISTEN=" + admin)
	if d.guest != nil {
		l.name = d.guest.name + "-" + member // nobody else's
	} else {
		env = append(env, "TALLYMAN_LOADER_SESSION_TIMEOUT="+sessionTimeout.String())
	}
	env = append(env, "TALLYMAN_LOADER_MEMBER="+l.name)
	if d.heals() {
		env = append(env, "TALLYMAN_LOADER_MISSING_GRACE="+missingGrace.String(), "TALLYMAN_LOADER_RECEIPT_INTERVAL="+receiptInterval.String())
	}
	l.process, err = d.start(launch{name: member, args: []string{"load", d.manifest.Dataset.String()}, env: env})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (d *Demo) startLoaders() error {
	for i := range d.config.Loaders {
		l, err := d.startLoader(fmt.Sprintf("loader-%d", i+1))
		if err != nil {
			return err
		}
		d.mu.Lock()
		d.loaders = append(d.loaders, l)
		d.mu.Unlock()
	}
	return nil
}

// duplicatesMetric counts what the ledger refused, in a loader's metrics.
const (
	batchesMetric = "tallyman_loader_batches_total"
	outcomeLabel  = "outcome"
	duplicate     = "duplicate"
)

// duplicates adds up what the living loaders have refused as loaded already.
func (d *Demo) duplicates(ctx context.Context) int64 {
	d.mu.Lock()
	loaders := d.loaders
	d.mu.Unlock()
	sum := d.lost
	for _, l := range loaders {
		if l == nil {
			continue
		}
		n, err := l.duplicates(ctx)
		if err == nil {
			sum += n
		}
	}
	return sum
}

// duplicates reads from the loader's metrics how many batches it refused.
func (l *loader) duplicates(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		return 0, fmt.Errorf("read metrics of %s: %w", l.member, err)
	}
	sum := 0.0
	for _, m := range families[batchesMetric].GetMetric() {
		for _, label := range m.GetLabel() {
			if label.GetName() == outcomeLabel && label.GetValue() == duplicate {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return int64(sum), nil
}
