package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// newestPostgres is the version to fetch when none is asked for.
const newestPostgres = "18"

// fetchable returns the exact version that is fetched for a major one.
func fetchable(major string) (embeddedpostgres.PostgresVersion, error) {
	switch major {
	case "15":
		return embeddedpostgres.V15, nil
	case "16":
		return embeddedpostgres.V16, nil
	case "17":
		return embeddedpostgres.V17, nil
	case "18":
		return embeddedpostgres.V18, nil
	}
	return "", fmt.Errorf("PostgreSQL version %q: must be 15, 16, 17, 18 or empty", major)
}

// postgresBinaries returns the directory of initdb and postgres.
func postgresBinaries(ctx context.Context, c PostgresConfig) (string, error) {
	if c.Version == "" {
		if dir := installedPostgres(); dir != "" {
			return dir, nil
		}
		c.Version = newestPostgres
	}
	version, err := fetchable(c.Version)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir(c.CacheDir)
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "postgresql-"+string(version))
	if hasPostgres(filepath.Join(home, "bin")) {
		return filepath.Join(home, "bin"), nil
	}
	unlock, err := lockFile(ctx, home+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if hasPostgres(filepath.Join(home, "bin")) {
		return filepath.Join(home, "bin"), nil
	}
	if err := fetchPostgres(ctx, version, home, c.Progress); err != nil {
		return "", fmt.Errorf("fetch PostgreSQL %s: %w", version, err)
	}
	return filepath.Join(home, "bin"), nil
}

// installedPostgres returns the directory of an installed server's programs,
// or "": the one on the PATH, else the newest where Debian keeps them.
func installedPostgres() string {
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil && hasPostgres(filepath.Dir(path)) {
			return filepath.Dir(path)
		}
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	major := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return major(b) - major(a) })
	for _, dir := range dirs {
		if hasPostgres(dir) {
			return dir
		}
	}
	return ""
}

func hasPostgres(bin string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(bin, name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// fetchPostgres downloads a version and unpacks it to home. The caller holds
// the lock. The library can't be interrupted: when ctx ends first, the
// download goes on in the background and its result is dropped.
func fetchPostgres(ctx context.Context, version embeddedpostgres.PostgresVersion, home string, progress io.Writer) error {
	begun := time.Now()
	if progress == nil {
		progress = io.Discard
	}
	fmt.Fprintf(progress, "fetching PostgreSQL %s, once, into %s ...\n", version, home)
	scratch, err := os.MkdirTemp(filepath.Dir(home), ".fetch-")
	if err != nil {
		return err
	}
	var (
		unpacked = filepath.Join(scratch, "postgresql")
		complete = filepath.Join(scratch, "complete")
		result   = make(chan error, 1)
	)
	go func() {
		// The trailing dot makes Start refuse the data directory once it has
		// fetched and unpacked: see the package documentation.
		result <- embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
			Version(version).
			Port(0).
			CachePath(filepath.Join(scratch, "archive")).
			BinariesPath(unpacked).
			RuntimePath(complete).
			DataPath(filepath.Join(scratch, "none") + "/.").
			Logger(io.Discard)).Start()
		http.DefaultClient.CloseIdleConnections() // the library's client
	}()
	select {
	case err = <-result:
	case <-ctx.Done():
		go func() { _ = errors.Join(<-result, os.RemoveAll(scratch)) }()
		return context.Cause(ctx)
	}
	defer os.RemoveAll(scratch)
	if _, missing := os.Stat(complete); missing != nil || !hasPostgres(filepath.Join(unpacked, "bin")) {
		return errOr(err, errors.New("no server in what was unpacked"))
	}
	if err := openToAll(unpacked); err != nil {
		return err
	}
	if err := os.Rename(unpacked, home); err != nil {
		return err
	}
	fmt.Fprintf(progress, "fetched PostgreSQL %s in %.1f s\n", version, time.Since(begun).Seconds())
	return nil
}
