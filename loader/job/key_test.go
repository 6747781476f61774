package job_test

import (
	"strings"
	"testing"

	"tallyman/loader/job"
)

// A key is made from what a job is about, in a way that never changes: jobs that
// are in a ledger would be strangers otherwise.
func TestKeysAreWhatTheyWere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind string
		on   job.Target
		want job.Key
	}{
		{"load", job.Target{Dataset: "ads/clicks", Manifest: strings.Repeat("a", 64), Revision: 1}, "ce62c65bd9c10a464fef19f2ed33165eb878fbe8c880ac5b41aefc9fa394c648"},
		{"replay", job.Target{Dataset: "ads/clicks", Manifest: strings.Repeat("a", 64), Revision: 1}, "df86abc3e71dcfe4fb7f23bdbb54f8ef7a3a547daf67babeb3042d26f0110663"},
		{"load", job.Target{Dataset: "ads/clicks", Manifest: strings.Repeat("b", 64), Revision: 12}, "9ba23b7d3fa0242bc00936c119b90fd4877d915ebe97a51b459568f387b9a9bb"},
	} {
		if got := job.HashKey(c.kind, c.on); got != c.want || got.Valid() != nil {
			t.Errorf("%s %+v is %s, want %s", c.kind, c.on, got, c.want)
		}
	}
}

// Another kind, manifest or revision is another job, wherever one part ends and
// the next begins.
func TestKeysTellApart(t *testing.T) {
	t.Parallel()
	seen := map[job.Key]string{}
	for _, c := range [][3]string{{"load", "a/b", "c"}, {"loada", "/b", "c"}, {"load", "a/bc", ""}, {"load", "a/", "bc"}, {"resync", "a/b", "c"}, {"load", "a/b", "d"}} {
		for _, revision := range []int64{1, 2, 11} {
			k := job.HashKey(c[0], job.Target{Dataset: c[1], Manifest: c[2], Revision: revision})
			if other, again := seen[k]; again {
				t.Errorf("%v of revision %d has the key of %s", c, revision, other)
			}
			seen[k] = strings.Join(c[:], " ")
		}
	}
}

// What can't be a key is refused before it is looked for.
func TestMalformedKeys(t *testing.T) {
	t.Parallel()
	for _, k := range []job.Key{"", "legacy:", "legacy:0", "legacy:01", "A" + job.Key(strings.Repeat("a", 63)), job.Key(strings.Repeat("a", 63)),
		job.Key(strings.Repeat("a", 65)), job.Key(strings.Repeat("a", 1<<20)), job.Key(strings.Repeat("a", 63) + "\n"), "' OR true --"} {
		if err := k.Valid(); err == nil || len(err.Error()) > 300 {
			t.Errorf("%.80q: %.300v", k, err)
		}
	}
	for _, k := range []job.Key{"legacy:1", "legacy:9223372036854775807", job.Key(strings.Repeat("0", 64))} {
		if err := k.Valid(); err != nil {
			t.Error(err)
		}
	}
}
