package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

// canary is part of every password of these tests, right or wrong.
const canary = "canary7f3a"

// vault is a warehouse and a broker that want passwords, and what commands print
// there.
type vault struct {
	t         *testing.T
	port      int // of PostgreSQL
	broker    string
	home      string
	manifest  string
	rows      string
	mechanism string
}

func newVault(t *testing.T) *vault {
	t.Helper()
	server := sandboxtest.Server(t, "18")
	conn, err := pgx.Connect(t.Context(), server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if err := os.WriteFile(filepath.Join(server.Dir(), "data", "pg_hba.conf"), []byte("host all all 127.0.0.1/32 scram-sha-256\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'right-" + canary + "'", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{Users: map[string]string{"boss": "right-" + canary}})
	v := &vault{t: t, port: server.Port(), broker: broker.Addr(), home: t.TempDir(), mechanism: "SCRAM-SHA-256"}
	v.manifest = file(t, "clicks.yaml", clicks)
	v.rows = file(t, "rows.csv", "click_id,\"Größe; \"\"x\"\"\"\n3f1c2a44-0d1e-4a53-9d0e-2f9a3b1c7d10,1\n")
	return v
}

// env is the environment of a command with one password and the other.
func (v *vault) env(warehouse, kafka string) []string {
	return []string{
		fmt.Sprintf("DATABASE_URL=postgres://boss:%s-%s@127.0.0.1:%d/postgres?sslmode=disable", warehouse, canary, v.port),
		"KAFKA_BROKERS=" + v.broker, "TALLYMAN_KAFKA_SASL_MECHANISM=" + v.mechanism, "TALLYMAN_KAFKA_SASL_USER=boss",
		"TALLYMAN_KAFKA_SASL_PASSWORD=" + kafka + "-" + canary, "TALLYMAN_LOG_LEVEL=debug", "HOME=" + v.home,
		"TALLYMAN_ADMIN_LISTEN=127.0.0.1:0", "PATH=" + os.Getenv("PATH"),
	}
}

// clean fails the test if what was printed holds a password.
func (v *vault) clean(where string, text ...string) {
	v.t.Helper()
	for _, s := range text {
		if strings.Contains(s, canary) {
			v.t.Errorf("%s: a password is in\n%s", where, s)
		}
	}
}

// commandLines are one of each that works with servers, in an order that works.
func (v *vault) commandLines() [][]string {
	return [][]string{
		{"init", "--roles"}, {"init", "--roles=create"}, {"init", "-o", "json"},
		{"dataset", "apply", v.manifest, "--partitions", "2", "--replication-factor", "1", "-o", "json"}, {"dataset", "list"}, {"dataset", "show", "ads/clicks"},
		{"push", "ads/clicks", "--manifest", v.manifest, v.rows}, {"status"}, {"status", "ads/clicks", "-o", "json"}, {"rewind", "ads/clicks"},
		{"verify", "ads/clicks", "--digest"}, {"dataset", "infer", v.rows}, {"dataset", "apply", v.manifest, "--dry-run"}, {"quarantine", "list", "-o", "json"},
		{"quarantine", "redrive", "--all", "--yes"}, {"version"}, {"completion", "bash"},
	}
}

func TestNoPasswordIsPrinted(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256"} {
		v.mechanism = mechanism
		for _, args := range v.commandLines() {
			r := invoke(t, v.env("right", "right"), args...)
			v.clean(strings.Join(args, " "), r.stdout, r.stderr)
			if r.status != exitDone {
				t.Errorf("%s ended with %d\n%s", strings.Join(args, " "), r.status, r.stderr)
			}
		}
		for _, args := range v.commandLines() {
			for _, which := range [][2]string{{"wrong", "right"}, {"right", "wrong"}} {
				v.clean(strings.Join(args, " "), v.brief(v.env(which[0], which[1]), args...))
			}
		}
	}
	v.checkWrong()
	v.checkFaults()
	v.checkLoad("right", "right")
	v.checkLoad("wrong", "right")
	v.checkLoad("right", "wrong")
	v.checkServe("right")
	v.checkServe("wrong")
}

// brief executes a command line that may wait, for a while, and returns what it printed.
func (v *vault) brief(env []string, args ...string) string {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 2*time.Second)
	defer cancel()
	var out errorText
	p := program{stdin: strings.NewReader(""), stdout: &out, stderr: &out, env: env}
	_ = p.run(ctx, args)
	return out.String()
}

// checkWrong sees that a wrong password is told as one. The embedded broker
// only closes the connection, which is waited for.
func (v *vault) checkWrong() {
	v.t.Helper()
	fail(v.t, exitFailed, v.env("wrong", "right"), []string{"init"}, "password authentication failed")
	for _, args := range [][]string{{"push", "ads/clicks", "--manifest", v.manifest, v.rows}, {"rewind", "ads/clicks"}, {"load", "ads/clicks"}} {
		if out := v.brief(v.env("right", "wrong"), args...); !strings.Contains(out, "are the user and the password right") {
			v.t.Errorf("%s doesn't say why nothing happens:\n%s", strings.Join(args, " "), out)
		}
	}
}

// checkFaults sees that a configuration that can't be read is not quoted.
func (v *vault) checkFaults() {
	v.t.Helper()
	url := "postgres://boss:" + canary + "@127.0.0.1/d"
	dir := v.t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(canary+"\x00\n"), 0o600); err != nil {
		v.t.Fatal(err)
	}
	yaml := filepath.Join(dir, "t.yaml")
	if err := os.WriteFile(yaml, []byte("kafka: {sasl: {password: ["+canary+", "+canary+"]}}\nwarehouse: {url: [\""+url+"\"]}\n"), 0o600); err != nil {
		v.t.Fatal(err)
	}
	for _, tc := range []struct {
		env  string
		args []string
	}{
		{"X=", []string{"init", "--warehouse-url", url}},
		{"X=", []string{"init", "--warehouse-url", "host=127.0.0.1 password=" + canary}},
		{"X=", []string{"init", "--warehouse-url", "postgres://127.0.0.1/d?password=" + canary}},
		{"TALLYMAN_KAFKA_SASL_PASSWORD=", []string{"rewind", "a/b", "--config", yaml}},
		{"DATABASE_URL=postgres://boss:" + canary + "@127.0.0.1:port/d", []string{"init"}},
		{"DATABASE_URL=postgres://boss:%zz" + canary + "@127.0.0.1/d", []string{"init"}},
		{"DATABASE_URL=host=127.0.0.1 password='" + canary, []string{"init"}},
		{"DATABASE_URL=host=127.0.0.1 sslmode=none password=" + canary, []string{"init"}},
		{"DATABASE_URL=postgres://boss:" + canary + "@db.example/d", []string{"init"}},
		{"TALLYMAN_KAFKA_SASL_PASSWORD=\x00" + canary, []string{"rewind", "a/b"}},
		{"TALLYMAN_KAFKA_SASL_PASSWORD=\u0007" + canary, []string{"rewind", "a/b"}},
		{"TALLYMAN_KAFKA_SASL_PASSWORD_FILE=" + secret, []string{"rewind", "a/b"}}, // beside the password itself
	} {
		name, _, _ := strings.Cut(tc.env, "=")
		env := slices.DeleteFunc(v.env("right", "right"), func(e string) bool { return strings.HasPrefix(e, name+"=") })
		r := invoke(v.t, append(env, tc.env), tc.args...)
		where := tc.env + " " + strings.Join(tc.args, " ")
		v.clean(where, r.stdout, r.stderr)
		if r.status != exitUsage {
			v.t.Errorf("%s: ended with %d\n%s", where, r.status, r.stderr)
		}
	}
}

// errorText is a process's standard error while it is written.
type errorText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (j *errorText) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

// String returns what was written so far.
func (j *errorText) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// checkLoad runs a loader with one password and the other.
func (v *vault) checkLoad(warehouse, kafka string) {
	v.t.Helper()
	saidOf := map[string]string{"right right": "reading partitions", "wrong right": "password authentication failed", "right wrong": "are the user and the password right"}
	v.checkProcess(v.env(warehouse, kafka), saidOf[warehouse+" "+kafka], func(string) {}, "load", "--log-level", "debug")
}

// checkServe runs a daemon and comes with the token that it asks for, and with
// one that it does not know.
func (v *vault) checkServe(kafka string) {
	v.t.Helper()
	tokens := file(v.t, "tokens", "shop right-token-"+canary+"\n")
	door := regexp.MustCompile(`http://[0-9.:]+`)
	v.checkProcess(v.env("right", kafka), "taking rows", func(log string) {
		for which, want := range map[string]int{"right": http.StatusAccepted, "wrong": http.StatusUnauthorized} {
			post, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, door.FindString(log)+"/v1/datasets/ads/clicks/rows",
				strings.NewReader(`{"click_id":"3f1c2a44-0d1e-4a53-9d0e-2f9a3b1c7d10","Größe; \"x\"":"1"}`))
			if err != nil {
				v.t.Fatal(err)
			}
			post.Header.Set("Content-Type", "application/x-ndjson")
			post.Header.Set("Authorization", "Bearer "+which+"-token-"+canary)
			answer, err := http.DefaultClient.Do(post)
			if err != nil {
				v.t.Fatal(err)
			}
			text, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if err != nil || answer.StatusCode != want {
				v.t.Errorf("the %s token: %s, %v\n%s", which, answer.Status, err, text)
			}
			v.clean("answer", string(text), fmt.Sprint(answer.Header))
		}
	}, "source", "serve", "--serve-listen", "127.0.0.1:0", "--serve-manifests", v.manifest, "--serve-token-file", tokens)
}

// checkProcess runs a command as a process, once it has said something does
// something with its log, and looks at what it answers and at what others see of it.
func (v *vault) checkProcess(env []string, said string, do func(log string), args ...string) {
	v.t.Helper()
	var out errorText
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(env, asProgram), &out, &out
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	address := regexp.MustCompile(`metrics and probes" address=(\S+)`)
	awaitTrue(v.t, "the process says "+said, func() bool {
		return address.MatchString(out.String()) && strings.Contains(out.String(), said)
	})
	do(out.String())
	for _, page := range []string{"/metrics", "/livez", "/readyz"} {
		answer, err := http.Get("http://" + address.FindStringSubmatch(out.String())[1] + page)
		if err != nil {
			v.t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || len(text) == 0 {
			v.t.Errorf("%s: %d bytes, %v", page, len(text), err)
		}
		v.clean(page, string(text))
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
	if err != nil {
		v.t.Fatal(err)
	}
	v.clean("command line", string(line))
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		v.t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	v.clean("log of "+args[0], out.String())
}

// awaitTrue waits for a condition.
func awaitTrue(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !condition() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("in vain: ", what)
		}
	}
}

// children returns the processes below one, by their ids.
func children(t *testing.T, pid int) (all []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		_, after, _ := strings.Cut(string(text), ") ") // the name before may hold anything
		fields := strings.Fields(after)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			all = append(all, child)
			all = append(all, children(t, child)...)
		}
	}
	return all
}

// The demo's children get no passwords of whoever starts it, on a command line
// or in the environment.
func TestDemoPassesNoPasswordOn(t *testing.T) {
	t.Parallel()
	var out errorText
	cmd := exec.Command(os.Args[0], "demo", "--rows", "2000", "--keep")
	cmd.Env = append(os.Environ(), asProgram, "DATABASE_URL=postgres://u:"+canary+"@db.example/d", "PGPASSWORD="+canary,
		"TALLYMAN_KAFKA_SASL_PASSWORD="+canary, "TALLYMAN_WAREHOUSE_URL=postgres://u:"+canary+"@db.example/d")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, "the demo ends", func() bool { return strings.Contains(out.String(), "goes on running") })
	found := children(t, cmd.Process.Pid)
	programs := ""
	for _, pid := range found {
		for _, name := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
			if err != nil {
				continue // it ended
			}
			if name == "cmdline" {
				programs += string(text)
			}
			if strings.Contains(string(text), canary) {
				t.Errorf("a password is in the %s of %s", name, programs)
			}
		}
	}
	if !slices.ContainsFunc(strings.Split(programs, "\x00"), func(s string) bool { return s == "load" }) || !strings.Contains(programs, "postgres") {
		t.Errorf("neither loaders nor PostgreSQL among %d children: %q", len(found), programs)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if strings.Contains(out.String(), canary) {
		t.Errorf("a password is in\n%s", out.String())
	}
}
