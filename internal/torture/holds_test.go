package torture

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// fail ends the test, and says what the warehouse, the brokers and the program
// say at that moment: what it is that holds up what the test waited for.
func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), w.holds())
}

// until waits until something is so.
func (w *world) until(what string, so func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		if so() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			w.fail("%s: not so after %v", what, patience)
		}
	}
}

// holds returns what is known of sources, topic, loaders and warehouse.
func (w *world) holds() string {
	// The test's own context may have ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), time.Minute)
	defer cancel()
	var b strings.Builder
	for _, args := range [][]string{{"status"}, {"missing", "list"}} {
		fmt.Fprintf(&b, "== tallyman %s\n", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, w.binary, args...)
		cmd.Env = w.env
		cmd.Stdout, cmd.Stderr = &b, &b
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		fmt.Fprintf(&b, "== warehouse: %v\n", err)
	} else {
		for _, table := range []string{
			"streams ORDER BY source, seen_at", "positions ORDER BY cluster, partition", "receipts ORDER BY incarnation", "gaps ORDER BY seen_at",
		} {
			fmt.Fprintf(&b, "== %s\n%s", table, tableText(ctx, conn, "SELECT * FROM tallyman."+table))
		}
		_ = conn.Close(ctx)
	}
	fmt.Fprintf(&b, "== %s\n", w.kafka.describe(ctx))
	for _, log := range w.logs() {
		fmt.Fprintf(&b, "== warnings of %s\n%s", log, warnings(log))
	}
	return b.String()
}

// tableText returns what a statement finds, a line for each row.
func tableText(ctx context.Context, conn *pgx.Conn, sql string) string {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			fmt.Fprintln(&b, err)
			continue
		}
		for i, f := range rows.FieldDescriptions() {
			v := fmt.Sprint(values[i])
			switch x := values[i].(type) {
			case [16]byte:
				v = fmt.Sprintf("%x", x)
			case []byte:
				v = fmt.Sprintf("%.160q", x)
			case time.Time:
				v = x.Format("15:04:05.000")
			}
			fmt.Fprintf(&b, "%s=%s ", f.Name, v)
		}
		fmt.Fprintln(&b)
	}
	if err := rows.Err(); err != nil {
		fmt.Fprintln(&b, err)
	}
	return b.String()
}

// warnings returns the last lines of a log that are warnings and errors.
func warnings(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error() + "\n"
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "level=INFO") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-20):], "")
}

// describe returns the topic's log and the loaders' group in words.
func (c *cluster) describe(ctx context.Context) string {
	client, err := c.client()
	if err != nil {
		return err.Error()
	}
	defer client.Close()
	starts, err := offsets(ctx, client, topic, -2)
	if err != nil {
		return fmt.Sprintf("topic %s: %v", topic, err)
	}
	ends, err := offsets(ctx, client, topic, -1)
	if err != nil {
		return fmt.Sprintf("topic %s: %v", topic, err)
	}
	members, state, err := membersOf(ctx, client, group)
	return fmt.Sprintf("topic %s from %v to %v; group %s: %s, %d members, %v", topic, starts, ends, group, state, members, err)
}
