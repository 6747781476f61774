package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/admin"
	"tallyman/schema"
	"tallyman/source"
	"tallyman/source/serve"
)

func newSource(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "source",
		GroupID: groupRun,
		Short:   "Take rows over HTTP; retire a crashed source; look into a source's journal",
		Example: `  tallyman source serve --serve-manifests conversions.yaml
  tallyman source retire ads/conversions --source eu-west-3 --reason disk-lost
  tallyman source journal list`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newServe(p), newRetire(p), newJournal(p))
	return cmd
}

func newServe(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Take rows over HTTP and publish them, until told to stop",
		Long: `Take rows over HTTP and publish them, until told to stop.

An answer of 202 means that the rows are in the daemon's journal, on disk. A batch that is posted
under an id (Idempotency-Key) is loaded once, however often it is posted. /v1/openapi.json is the
whole interface. Each dataset's journal is under serve in source.dir.

What a warehouse says it misses is published again from the journal, by itself. Batches stay in
the journal until every warehouse named in serve.targets has confirmed them and serve.retention is
over; without serve.targets they stay for good.

Beyond this machine the daemon listens only with a certificate (or allow_plaintext) and asks every
client for a token or a certificate. Token file and certificates are read again when they change.
SIGTERM ends it within ten seconds, with the requests under way answered. /metrics, /livez and
/readyz answer on admin.listen.`,
		Example: `  tallyman source serve --serve-manifests conversions.yaml
  tallyman source serve --serve-manifests manifests/ --serve-listen 0.0.0.0:8480 --serve-token-file tokens --serve-tls-cert tls.crt --serve-tls-key tls.key`,
		Args: cobra.NoArgs,
	}
	settingFlags(cmd, "kafka", "source", "serve", "admin")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.settings(cmd, settings.Kafka|settings.Admin|settings.Serve)
		if err != nil {
			return err
		}
		manifests, err := readManifests(cfg.ServeManifests)
		if err != nil {
			return err
		}
		dir, err := p.stateDir(cfg)
		if err != nil {
			return err
		}
		name, err := sourceName(cfg)
		if err != nil {
			return err
		}
		served := &serving{cfg: cfg, dir: filepath.Join(dir, "serve"), name: name, log: p.logger(cfg), registry: newRegistry()}
		return served.run(cmd.Context(), manifests)
	}
	return cmd
}

// readManifests reads files, and every manifest of directories. Two of one
// dataset are an error.
func readManifests(names []string) ([]schema.Manifest, error) {
	files, err := manifestFiles(names)
	if err != nil {
		return nil, err
	}
	from := map[schema.Dataset]string{}
	var all []schema.Manifest
	for _, file := range files {
		m, err := readManifest(file)
		if err != nil {
			return nil, err
		}
		if other := from[m.Dataset]; other != "" {
			return nil, fmt.Errorf("%s and %s are both manifests of %s", other, file, m.Dataset)
		}
		from[m.Dataset] = file
		all = append(all, m)
	}
	return all, nil
}

// manifestFiles names files, and for directories every manifest in them. None
// is an error.
func manifestFiles(names []string) ([]string, error) {
	var files []string
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, name)
			continue
		}
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(e.Name())) {
				files = append(files, filepath.Join(name, e.Name()))
			}
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no manifest in %v", names)
	}
	return files, nil
}

// serving is the work of one daemon: a source for each dataset, and the two listeners.
type serving struct {
	cfg      settings.Config
	dir      string
	name     string
	log      *slog.Logger
	registry *prometheus.Registry
}

// publishLimit is how long a source goes on publishing when the daemon ends.
// With the requests under way it is less than the ten seconds that it may take.
const publishLimit = 3 * time.Second

func (s *serving) run(ctx context.Context, manifests []schema.Manifest) (err error) {
	sources := make([]*source.Source, len(manifests))
	defer func() { err = errors.Join(err, closeAll(sources)) }()
	var group errgroup.Group // side by side: each waits a while for a Kafka that is away
	for i, m := range manifests {
		group.Go(func() (err error) {
			sources[i], err = source.Open(ctx, source.Config{
				Manifest: m, Kafka: kafkaConfig(s.cfg), Dir: filepath.Join(s.dir, m.Dataset.Namespace, m.Dataset.Name), Name: s.name,
				CloseTimeout: publishLimit, AnnounceEvery: s.cfg.ServeAnnounceInterval, Logger: s.log,
				Targets: s.cfg.ServeTargets, Retention: s.cfg.ServeRetention,
				ReplayBatches: s.cfg.ServeReplayBatches, ReplayBytes: int64(s.cfg.ServeReplayBytes),
				ReplayGrace: s.cfg.ServeReplayGrace, ReplayTries: s.cfg.ServeReplayTries,
				Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"dataset": m.Dataset.String()}, s.registry),
			})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	daemon, err := serve.New(serve.Config{
		Sources: sources, Listen: s.cfg.ServeListen, CertFile: s.cfg.ServeTLSCert, KeyFile: s.cfg.ServeTLSKey, ClientCA: s.cfg.ServeClientCA,
		TokenFile: s.cfg.ServeTokenFile, MaxBody: int64(s.cfg.ServeMaxBody), MaxRows: s.cfg.ServeMaxRows, MaxRequests: s.cfg.ServeMaxRequests,
		Memory: int64(s.cfg.ServeMemory), Rate: s.cfg.ServeRate, ReadTimeout: s.cfg.ServeReadTimeout, Logger: s.log, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	return s.listen(ctx, daemon)
}

// listen serves rows and the admin page until ctx ends. The page answers for as
// long as rows are taken.
func (s *serving) listen(ctx context.Context, daemon *serve.Daemon) error {
	listener, err := daemon.Listen()
	if err != nil {
		return err
	}
	if s.cfg.AdminListen == "off" {
		s.log.Info("taking rows", "url", listener.URL())
		return listener.Run(ctx)
	}
	page, err := admin.Listen(admin.Config{Listen: s.cfg.AdminListen, Gatherer: s.registry, Ready: func() (string, error) { return "", daemon.Ready() }, Logger: s.log})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	s.log.Info("metrics and probes", "address", page.Addr())
	s.log.Info("taking rows", "url", listener.URL())
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var group sync.WaitGroup
	group.Go(func() {
		if err := page.Run(watch); err != nil {
			fail(err)
		}
	})
	err = listener.Run(ctx)
	stop()
	group.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// closeAll closes the sources side by side.
func closeAll(sources []*source.Source) error {
	errs := make([]error, len(sources))
	var group sync.WaitGroup
	for i, s := range sources {
		if s != nil { // else it was not opened
			group.Go(func() { errs[i] = s.Close() })
		}
	}
	group.Wait()
	return errors.Join(errs...)
}
