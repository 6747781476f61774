package journal

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Lock holds a directory, which it makes if it does not exist, until it is
// closed: for what its user keeps around a journal and has to make and remove
// alone. The error is [ErrInUse] if somebody else holds it.
func Lock(dir string) (io.Closer, error) {
	if err := vfs.Default.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("lock directory: %w", err)
	}
	return acquire(dir, vfs.Default)
}
