package serve

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits is a token bucket for each client.
type limits struct {
	perSecond int

	mu     sync.Mutex
	byName map[string]*rate.Limiter
}

func newLimits(perSecond int) *limits {
	return &limits{perSecond: perSecond, byName: map[string]*rate.Limiter{}}
}

// manyClients is how many buckets are kept before full ones, which say nothing,
// are thrown away.
const manyClients = 10_000

// take takes one request out of a client's bucket. The error is a problem.
func (l *limits) take(client string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.byName[client]
	if bucket == nil {
		if len(l.byName) >= manyClients {
			l.sweep()
		}
		bucket = rate.NewLimiter(rate.Limit(l.perSecond), l.perSecond)
		l.byName[client] = bucket
	}
	now := time.Now()
	reservation := bucket.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	reservation.CancelAt(now)
	return newProblem(tooManyRequests, "a client may make %d requests a second", l.perSecond).over(int64(l.perSecond)).after(wait)
}

// sweep forgets the clients that rest; if all are busy, everybody, since memory
// comes before fairness. Callers hold l.mu.
func (l *limits) sweep() {
	for name, bucket := range l.byName {
		if bucket.Tokens() >= float64(l.perSecond) {
			delete(l.byName, name)
		}
	}
	if len(l.byName) >= manyClients {
		clear(l.byName)
	}
}

// addressOf returns what a client without a name is known by: its address, and
// of IPv6 the network, of which a client has all addresses.
func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.String()
		}
	}
	return addr.String()
}
