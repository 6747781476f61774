package sandbox

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// cacheDir returns the directory for fetched programs, made if need be: dir if
// it is not empty, else the user's cache directory. Root's home can't be
// passed by the account that PostgreSQL runs under, so root gets a directory
// of its own beside the temporary ones.
func cacheDir(dir string) (string, error) {
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "tallyman-cache-"+strconv.Itoa(os.Getuid()))
		if user, err := os.UserCacheDir(); err == nil && os.Getuid() != 0 {
			dir = filepath.Join(user, "tallyman")
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("look at cache directory: %w", err)
	}
	// The temporary directory is open to everybody: what is run from the cache
	// must not have been put there by somebody else.
	if !info.IsDir() || !isOurs(info) || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("cache directory %s: must be a directory of this user that nobody else can write", dir)
	}
	return dir, nil
}

// lockFile takes an exclusive lock between processes, waiting for it until ctx
// ends. The lock goes when unlock is called or the process ends.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		locked, err := tryLock(f)
		if locked {
			return func() { f.Close() }, nil
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// openToAll lets every account read, and run what can be run, below dir.
func openToAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if entry.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}
