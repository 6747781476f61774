package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
)

// MkdirTemp makes a temporary directory that other accounts can pass through
// but not list, unlike os.MkdirTemp: what a root process keeps in it can be
// the parent of PostgreSQL's data directory.
func MkdirTemp(pattern string) (string, error) {
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// checkPassable names the first directory on the way to path that other
// accounts can't pass.
func checkPassable(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("PostgreSQL can't run as root, and the unprivileged account it runs under can't pass %s (mode %v): use another directory or chmod o+x it", dir, info.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
