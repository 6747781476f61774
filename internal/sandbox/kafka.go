package sandbox

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
)

// KafkaConfig says where to run an Apache Kafka broker.
type KafkaConfig struct {
	// Dir holds configuration, data and log; a broker that was stopped there
	// goes on with what it had. Defaults to a temporary directory that Close removes.
	Dir string
	// CacheDir keeps the jars. Defaults to the user's cache directory; for
	// root, one beside the temporary directories.
	CacheDir string
	// Listeners are further ways to connect. Defaults to the plain one alone.
	Listeners []KafkaListener
	// Progress gets a line when the jars are fetched. Defaults to nowhere.
	Progress io.Writer
}

// Kafka is a running, or stopped, Apache Kafka broker: the real one, with its
// controller in the same process, for tests of what only it can show.
type Kafka struct {
	dir        string
	jars       string
	temporary  bool
	port       int
	controller int
	listeners  []openListener

	mu     sync.Mutex
	server *process // nil before the first start
}

// kafkaVersion is the one in kafka/pom.xml.
const kafkaVersion = "4.3.1"

// kafkaFiles are the broker's configuration, and what Maven needs to fetch it.
//
//go:embed kafka
var kafkaFiles embed.FS

// StartKafka fetches the broker's jars with Maven if they are not in the cache,
// formats a log directory, unless Dir has one, and runs the broker. It returns
// once the broker serves; ctx limits only that. It needs java and mvn.
func StartKafka(ctx context.Context, c KafkaConfig) (*Kafka, error) {
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	for _, program := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("run Apache Kafka: %w (needs a JDK, 17 or newer, and Maven)", err)
		}
	}
	jars, err := kafkaJars(ctx, c)
	if err != nil {
		return nil, err
	}
	k := &Kafka{jars: jars, dir: c.Dir}
	if k.dir == "" {
		k.temporary = true
		k.dir, err = os.MkdirTemp("", "tallyman-kafka-")
	} else {
		err = os.MkdirAll(k.dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("make directory for Kafka: %w", err)
	}
	for _, l := range c.Listeners {
		k.listeners = append(k.listeners, openListener{KafkaListener: l})
	}
	err = k.configure(ctx)
	if err == nil {
		err = k.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// kafkaJars returns the directory of the jars, fetched once.
func kafkaJars(ctx context.Context, c KafkaConfig) (string, error) {
	cache, err := cacheDir(c.CacheDir)
	if err != nil {
		return "", err
	}
	jars := filepath.Join(cache, "kafka-"+kafkaVersion)
	unlock, err := lockFile(ctx, jars+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(jars); err == nil {
		return jars, nil
	}
	fmt.Fprintf(c.Progress, "fetching Apache Kafka %s, once, into %s ...\n", kafkaVersion, jars)
	scratch, err := os.MkdirTemp(cache, ".fetch-")
	if err != nil {
		return "", fmt.Errorf("fetch Apache Kafka: %w", err)
	}
	defer os.RemoveAll(scratch)
	if err := os.CopyFS(scratch, kafkaFiles); err != nil {
		return "", fmt.Errorf("fetch Apache Kafka: %w", err)
	}
	fetched := filepath.Join(scratch, "jars")
	mvn := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", filepath.Join(scratch, "kafka", "pom.xml"),
		"dependency:copy-dependencies", "-DoutputDirectory="+fetched)
	if out, err := mvn.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Apache Kafka with Maven: %w\n%s", err, out)
	}
	if err := os.Rename(fetched, jars); err != nil {
		return "", fmt.Errorf("fetch Apache Kafka: %w", err)
	}
	return jars, nil
}

// configure writes the broker's files and formats its log directory, unless
// both were done in an earlier run.
func (k *Kafka) configure(ctx context.Context) error {
	var err error
	if k.port, err = freePort(); err == nil {
		k.controller, err = freePort()
	}
	for i := range k.listeners {
		if err == nil {
			k.listeners[i].Port, err = freePort()
		}
	}
	if err != nil {
		return err
	}
	log4j, err := kafkaFiles.ReadFile("kafka/log4j2.properties")
	if err == nil {
		err = os.WriteFile(k.path("log4j2.properties"), log4j, 0o644)
	}
	if err != nil {
		return fmt.Errorf("configure Kafka: %w", err)
	}
	properties, err := template.ParseFS(kafkaFiles, "kafka/server.properties")
	if err != nil {
		return fmt.Errorf("configure Kafka: %w", err)
	}
	var text strings.Builder
	err = properties.Execute(&text, map[string]any{"Port": k.port, "Controller": k.controller, "Data": k.path("data"), "Listeners": k.listeners})
	if err == nil {
		err = os.WriteFile(k.path("server.properties"), []byte(text.String()), 0o644)
	}
	if err != nil {
		return fmt.Errorf("configure Kafka: %w", err)
	}
	if _, err := os.Stat(k.path("data")); err == nil {
		return nil
	}
	return k.format(ctx)
}

// format makes an empty log directory, that of another cluster each time.
func (k *Kafka) format(ctx context.Context) error {
	id, err := k.tool(ctx, "kafka.tools.StorageTool", "random-uuid")
	if err == nil {
		_, err = k.tool(ctx, "kafka.tools.StorageTool", append([]string{"format", "--standalone",
			"-t", strings.TrimSpace(id), "-c", k.path("server.properties")}, k.scram()...)...)
	}
	if err != nil {
		return fmt.Errorf("format Kafka's log directory: %w", err)
	}
	return nil
}

func (k *Kafka) path(name string) string { return filepath.Join(k.dir, name) }

// java returns the command that runs one of the broker's classes.
func (k *Kafka) java(class string, args ...string) []string {
	return append([]string{
		"-Xms256m", "-Xmx512m", "-Djava.awt.headless=true", "-XX:+UseSerialGC",
		"-Dlog4j2.configurationFile=file:" + k.path("log4j2.properties"),
		"-cp", filepath.Join(k.jars, "*"), class,
	}, args...)
}

// tool runs a class to its end and returns what it printed.
func (k *Kafka) tool(ctx context.Context, class string, args ...string) (string, error) {
	var problems strings.Builder
	cmd := exec.CommandContext(ctx, "java", k.java(class, args...)...)
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", class, err, out, problems.String())
	}
	return string(out), nil
}

// Tool runs one of Kafka's command-line tools by its class, such as
// org.apache.kafka.tools.TopicCommand, against this broker.
func (k *Kafka) Tool(ctx context.Context, class string, args ...string) (string, error) {
	return k.tool(ctx, class, append([]string{"--bootstrap-server", k.Addr()}, args...)...)
}

// Addr returns the broker's address, host:port; it stays the same over restarts.
func (k *Kafka) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(k.port)) }

// Start runs the broker again after Stop or Kill, with what it had.
func (k *Kafka) Start(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server != nil && k.server.running() {
		return errors.New("start Kafka: it is running")
	}
	log, err := os.OpenFile(k.path("kafka.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open Kafka's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command("java", k.java("kafka.Kafka", k.path("server.properties"))...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = k.dir, log, log
	if k.server, err = startProcess(cmd, syscall.SIGKILL); err != nil {
		return fmt.Errorf("start Kafka: %w", err)
	}
	if err := k.server.await(ctx, k.ready); err != nil {
		err = fmt.Errorf("start Kafka: %w\n%s", err, tail(k.path("kafka.log")))
		return errors.Join(err, k.server.end(syscall.SIGKILL, 0, syscall.SIGKILL))
	}
	return nil
}

// ready says whether the broker has logged that it serves.
func (k *Kafka) ready() bool {
	text, err := os.ReadFile(k.path("kafka.log"))
	return err == nil && strings.Contains(string(text), "Kafka Server started")
}

// Stop shuts the broker down in order. A stopped broker is no error.
func (k *Kafka) Stop() error { return k.end(syscall.SIGTERM) }

// Kill ends the broker with SIGKILL.
func (k *Kafka) Kill() error { return k.end(syscall.SIGKILL) }

// LoseDisk gives a stopped broker a new, empty disk: no topics, no groups, and
// another cluster id.
func (k *Kafka) LoseDisk(ctx context.Context) error {
	if err := os.RemoveAll(k.path("data")); err != nil {
		return fmt.Errorf("empty Kafka's log directory: %w", err)
	}
	return k.format(ctx)
}

func (k *Kafka) end(sig syscall.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server == nil || !k.server.running() {
		return nil
	}
	const patience = 30 * time.Second
	if err := k.server.end(sig, patience, syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop Kafka: %w", err)
	}
	return nil
}

// Close kills the broker and removes its directory if it was a temporary one.
func (k *Kafka) Close() error {
	if !k.temporary {
		return k.Stop()
	}
	return errors.Join(k.Kill(), os.RemoveAll(k.dir))
}
