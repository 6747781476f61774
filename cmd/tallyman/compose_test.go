package main

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
)

func composeProject(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../../docker-compose.yml"}, cli.WithWorkingDirectory("../.."))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// ours returns the services that run this program, by name.
func ours(p *types.Project) map[string]types.ServiceConfig {
	services := map[string]types.ServiceConfig{}
	for name, s := range p.Services {
		if s.Build != nil {
			services[name] = s
		}
	}
	return services
}

// No engine runs where the tests do. What can be wrong in the file is found by
// reading it as Compose does and this program's part of it as this program does.
func TestComposeServices(t *testing.T) {
	t.Parallel()
	p := composeProject(t)
	want := []string{"dataset", "init", "kafka", "loader", "postgres", "prometheus", "source"}
	if got := p.ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("services are %v, want %v", got, want)
	}
	pinned := regexp.MustCompile(`^[a-z/]+:(v?[0-9]+\.[0-9.]+|local)$`)
	for name, s := range p.Services {
		if !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %q is not pinned", name, s.Image)
		}
		if s.Build != nil {
			if _, err := os.Stat("../../" + s.Build.Dockerfile); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		once := s.Restart == "on-failure:5"
		if (s.HealthCheck == nil) != once {
			t.Errorf("%s: a service that goes on has a health check, one that ends has none", name)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to other machines", name, port.Published)
			}
		}
		for _, secret := range s.Secrets {
			if _, err := os.Stat(p.Secrets[secret.Source].File); err != nil {
				t.Errorf("%s: secret %s: %v", name, secret.Source, err)
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeVolume {
				if _, ok := p.Volumes[v.Source]; !ok {
					t.Errorf("%s: no volume %s", name, v.Source)
				}
				continue
			}
			if info, err := os.Stat(v.Source); err != nil || info.IsDir() {
				t.Errorf("%s: %s is mounted and is no file: %v", name, v.Source, err)
			}
		}
	}
}

// Every command of ours must be one that this program takes, with settings that
// it accepts for it.
func TestComposeCommands(t *testing.T) {
	t.Parallel()
	for name, s := range ours(composeProject(t)) {
		p := &program{stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
		for key, value := range s.Environment {
			p.env = append(p.env, key+"="+*value)
		}
		root, _ := newRoot(p)
		cmd, args, err := root.Find(s.Command)
		if err != nil || !cmd.Runnable() {
			t.Errorf("%s: %v is not a command: %v", name, s.Command, err)
			continue
		}
		if err := cmd.ParseFlags(args); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		needs := settings.Kafka | settings.Warehouse | settings.Admin
		if cmd.Name() == "serve" {
			needs = settings.Kafka | settings.Admin | settings.Serve
		}
		cfg, err := p.settings(cmd, needs)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(cfg.KafkaBrokers) != 1 || needs&settings.Warehouse != 0 && !cfg.WarehouseFromPG {
			t.Errorf("%s: settings are %+v", name, cfg)
		}
		for key := range s.Environment {
			if strings.HasPrefix(key, "TALLYMAN_") && !slices.ContainsFunc(settings.Table(), func(s settings.Setting) bool { return s.Env() == key }) {
				t.Errorf("%s: no setting is called %s", name, key)
			}
		}
	}
}

// The files that are mounted say what their readers understand.
func TestComposeFiles(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/conversions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := schema.ParseManifest(text); err != nil {
		t.Error(err)
	}
	if text, err = os.ReadFile("../../deploy/prometheus.yml"); err != nil {
		t.Fatal(err)
	}
	var prometheus struct {
		Scrape []struct {
			Discovery []struct {
				Names []string
				Port  string
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(text, &prometheus); err != nil {
		t.Fatal(err)
	}
	services := composeProject(t).Services
	loader, source := services["loader"], services["source"]
	listen := *loader.Environment["TALLYMAN_ADMIN_LISTEN"]
	scraped := prometheus.Scrape[0].Discovery[0]
	if !slices.Equal(scraped.Names, []string{loader.Name, source.Name}) || !strings.HasSuffix(listen, ":"+scraped.Port) {
		t.Errorf("Prometheus asks %v at port %s; %s listens on %s", scraped.Names, scraped.Port, loader.Name, listen)
	}
}
