package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

// The whole path as people run it: real Kafka with TLS, client certificates and
// SCRAM, the owner, the loader and the reader each as a user of its own.
func TestSecuredPath(t *testing.T) {
	t.Parallel()
	authority := sandboxtest.NewAuthority(t)
	later := time.Now().Add(time.Hour)
	client := authority.Issue(t, later)
	kafka := sandboxtest.Kafka(t, sandbox.KafkaListener{
		Name: "SECURE", KeyStore: authority.Issue(t, later, "127.0.0.1").Both, ClientCA: authority.File, Users: map[string]string{"loader": "right-" + canary},
	})
	server := sandboxtest.Server(t, "18")
	password := file(t, "password", "right-"+canary+"\n")
	env := func(user string) []string {
		return []string{
			"DATABASE_URL=" + strings.Replace(server.DSN("postgres"), "postgres@", user+"@", 1), "KAFKA_BROKERS=" + kafka.ListenerAddr("SECURE"),
			"TALLYMAN_KAFKA_TLS_ENABLED=true", "TALLYMAN_KAFKA_TLS_CA_FILE=" + authority.File,
			"TALLYMAN_KAFKA_TLS_CERT_FILE=" + client.Cert, "TALLYMAN_KAFKA_TLS_KEY_FILE=" + client.Key,
			"TALLYMAN_KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "TALLYMAN_KAFKA_SASL_USER=loader", "TALLYMAN_KAFKA_SASL_PASSWORD_FILE=" + password,
			"TALLYMAN_ADMIN_LISTEN=off", "HOME=" + t.TempDir(),
		}
	}
	succeed(t, env("postgres"), "init", "--roles=create")
	conn, err := pgx.Connect(t.Context(), server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	for _, sql := range []string{"CREATE ROLE ana LOGIN IN ROLE tallyman_owner", "CREATE ROLE lo LOGIN IN ROLE tallyman_loader", "CREATE ROLE re LOGIN IN ROLE tallyman_reader"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	manifest := file(t, "clicks.yaml", clicks)
	succeed(t, env("ana"), "init")
	succeed(t, env("ana"), "dataset", "apply", manifest, "--partitions", "2")
	rows := file(t, "rows.csv", "click_id,\"Größe; \"\"x\"\"\"\n3f1c2a44-0d1e-4a53-9d0e-2f9a3b1c7d10,1\n")
	if r := invoke(t, env("lo"), "push", "ads/clicks", "--manifest", manifest, rows); r.status != exitDone {
		t.Fatalf("push: %d\n%s", r.status, r.stderr)
	}
	var out errorText
	cmd := exec.Command(os.Args[0], "load", "ads/clicks")
	cmd.Env, cmd.Stdout, cmd.Stderr = append(env("lo"), asProgram), &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, "the row is loaded", func() bool {
		var n int
		return conn.QueryRow(t.Context(), "SELECT count(*) FROM public.clicks").Scan(&n) == nil && n == 1
	})
	contains(t, succeed(t, env("lo"), "rewind", "ads/clicks"), "is read again")
	for _, user := range []string{"lo", "re"} {
		contains(t, succeed(t, env(user), "status"), "ads/clicks 1 1 ")
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("load: %v\n%s", err, out.String())
	}
	// What a person has to mend ends a command, at its start.
	if err := os.WriteFile(password, []byte("wrong-"+canary), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"load", "ads/clicks"}, {"push", "ads/clicks", "--manifest", manifest, rows}, {"dataset", "apply", manifest}, {"rewind", "ads/clicks"},
	} {
		user := map[bool]string{true: "ana", false: "lo"}[args[0] == "dataset"]
		fail(t, exitFailed, env(user), args, "the user or the password is wrong (kafka.sasl.user")
	}
}
