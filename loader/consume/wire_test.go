package consume

import (
	"encoding/binary"
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox"
)

// wire stands between the brokers and their clients.
type wire struct {
	mu     sync.Mutex
	muted  map[string]bool   // clients, by id, that hear nothing any more
	lost   map[kmsg.Key]bool // requests whose answers nobody hears
	first  chan struct{}     // closed when the first was lost; then nil
	mangle func(key kmsg.Key, answer []byte)
}

// newWiredRig returns a rig whose broker speaks through a wire.
func newWiredRig(t testing.TB, c sandbox.BrokerConfig, partitions int32) (*rig, *wire) {
	w := &wire{muted: map[string]bool{}, lost: map[kmsg.Key]bool{}}
	c.Listen = func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		return wiredListener{l, w}, err
	}
	return newRig(t, c, partitions), w
}

func (w *wire) mute(client string, muted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.muted[client] = muted
}

// lose has the answers to a kind of request lost from now on. The channel is
// closed with the first of them.
func (w *wire) lose(key kmsg.Key) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost[key] = true
	w.first = make(chan struct{})
	return w.first
}

// hurt has f change every answer; nil: nothing is changed any more.
func (w *wire) hurt(f func(key kmsg.Key, answer []byte)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mangle = f
}

type wiredListener struct {
	net.Listener
	wire *wire
}

func (l wiredListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &wiredConn{Conn: c, wire: l.wire}, err
}

// wiredConn is the broker's end of a connection.
type wiredConn struct {
	net.Conn
	wire *wire

	mu    sync.Mutex
	heard []byte  // of a request that is not complete
	asked []asked // not answered yet; brokers answer in order
}

// asked is what an answer is known by.
type asked struct {
	key    kmsg.Key
	client string
}

// Read notes which request it is and whose.
func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = append(c.heard, b[:n]...)
	for len(c.heard) >= 4 {
		size := int(binary.BigEndian.Uint32(c.heard))
		if len(c.heard) < 4+size {
			break
		}
		head := c.heard[4 : 4+size]
		one := asked{key: kmsg.Key(binary.BigEndian.Uint16(head))}
		if n := int(int16(binary.BigEndian.Uint16(head[8:]))); n >= 0 {
			one.client = string(head[10 : 10+n])
		}
		c.asked = append(c.asked, one)
		c.heard = c.heard[4+size:]
	}
	return n, err
}

// Write is called with one whole answer.
func (c *wiredConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	key, client := c.asked[0].key, c.asked[0].client
	c.asked = c.asked[1:]
	c.mu.Unlock()
	c.wire.mu.Lock()
	muted, mangle := c.wire.muted[client] || c.wire.lost[key], c.wire.mangle
	if c.wire.lost[key] && c.wire.first != nil {
		close(c.wire.first)
		c.wire.first = nil
	}
	if mangle != nil {
		b = append([]byte(nil), b...)
		mangle(key, b)
	}
	c.wire.mu.Unlock()
	if muted {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
