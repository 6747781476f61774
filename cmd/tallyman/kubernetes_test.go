package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
)

// cluster is what the files in deploy/kubernetes describe.
type cluster struct {
	config corev1.ConfigMap
	pods   map[string]corev1.PodSpec // by file
	claims map[string]bool           // names of volumes that a StatefulSet's pods have of their own
	labels map[string][2]map[string]string
}

// readCluster reads the files by the types of the API they are for: a field
// that it doesn't know is an error.
func readCluster(t *testing.T) cluster {
	t.Helper()
	c := cluster{pods: map[string]corev1.PodSpec{}, claims: map[string]bool{}, labels: map[string][2]map[string]string{}}
	files, err := filepath.Glob("../../deploy/kubernetes/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("files are %v: %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(text, []byte("\n---\n")) {
			if err := c.add(filepath.Base(file), doc); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	return c
}

func (c *cluster) add(file string, doc []byte) error {
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return err
	}
	switch kind := head.APIVersion + " " + head.Kind; kind {
	case "v1 ConfigMap":
		return yaml.UnmarshalStrict(doc, &c.config)
	case "v1 Service":
		return yaml.UnmarshalStrict(doc, &corev1.Service{})
	case "batch/v1 Job":
		var job batchv1.Job
		err := yaml.UnmarshalStrict(doc, &job)
		c.pods[file] = job.Spec.Template.Spec
		return err
	case "apps/v1 Deployment":
		var d appsv1.Deployment
		err := yaml.UnmarshalStrict(doc, &d)
		c.pods[file] = d.Spec.Template.Spec
		c.labels[file] = [2]map[string]string{d.Spec.Selector.MatchLabels, d.Spec.Template.Labels}
		return err
	case "apps/v1 StatefulSet":
		var s appsv1.StatefulSet
		err := yaml.UnmarshalStrict(doc, &s)
		c.pods[file] = s.Spec.Template.Spec
		for _, v := range s.Spec.VolumeClaimTemplates {
			c.claims[v.Name] = true
		}
		c.labels[file] = [2]map[string]string{s.Spec.Selector.MatchLabels, s.Spec.Template.Labels}
		return err
	default:
		return fmt.Errorf("%s is not expected", kind)
	}
}

// No cluster runs where the tests do. What can be wrong in the files is found by
// reading them by the API's own types, and this program's part of them as this
// program does.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	c := readCluster(t)
	dir := t.TempDir()
	for _, name := range []string{"kafka/ca.crt", "kafka/user", "kafka/password", "source/tokens", "source/tls.crt", "source/tls.key"} {
		c.config.Data[name] = "secret"
	}
	authority, err := os.ReadFile(sandboxtest.NewAuthority(t).File)
	if err != nil {
		t.Fatal(err)
	}
	c.config.Data["kafka/ca.crt"] = string(authority)
	for name, text := range c.config.Data {
		file := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(file), 0o700)
		if err = errors.Join(err, os.WriteFile(file, []byte(here(dir, text)), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"init.yaml", "loader.yaml", "source.yaml"} {
		if _, ok := c.pods[file]; !ok {
			t.Errorf("%s describes no pod", file)
		}
	}
	for file, labels := range c.labels {
		for key, want := range labels[0] {
			if labels[1][key] != want {
				t.Errorf("%s: its selector does not find its pods", file)
			}
		}
	}
	for file, pod := range c.pods {
		if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
			t.Errorf("%s: the pod may run as root", file)
		}
		volumes := maps.Clone(c.claims)
		for _, v := range pod.Volumes {
			volumes[v.Name] = true
		}
		for _, one := range append(pod.InitContainers, pod.Containers...) {
			t.Run(file+"/"+one.Name, func(t *testing.T) {
				for _, m := range one.VolumeMounts {
					if !volumes[m.Name] {
						t.Errorf("no volume is called %s", m.Name)
					}
				}
				checkContainer(t, dir, one)
			})
		}
	}
}

// here puts dir where the pods see their settings and secrets.
func here(dir, text string) string {
	return strings.NewReplacer("/etc/tallyman", dir, "/run/secrets", dir).Replace(text)
}

// checkContainer runs a container's command line as far as it goes without servers.
func checkContainer(t *testing.T, dir string, one corev1.Container) {
	t.Helper()
	if s := one.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Error("the container can write to its image")
	}
	p := &program{stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	for _, e := range one.Env {
		value := e.Value
		if e.ValueFrom != nil && e.Name == "DATABASE_URL" {
			value = "postgres://tallyman:secret@db.example.com/warehouse?sslmode=verify-full"
		}
		p.env = append(p.env, e.Name+"="+value)
	}
	args := make([]string, len(one.Args))
	for i, a := range one.Args {
		args[i] = here(dir, a)
	}
	root, _ := newRoot(p)
	cmd, rest, err := root.Find(args)
	if err != nil || !cmd.Runnable() {
		t.Fatalf("%v is not a command: %v", args, err)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Error(err)
	}
	needs := settings.Kafka | settings.Admin
	if cmd.Name() == "serve" {
		needs |= settings.Serve
	}
	cfg, err := p.settings(cmd, needs)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range one.Ports {
		listen := map[string]string{"admin": cfg.AdminListen, "https": cfg.ServeListen}[port.Name]
		if !strings.HasSuffix(listen, fmt.Sprintf(":%d", port.ContainerPort)) {
			t.Errorf("%s is at %s, not on port %d", port.Name, listen, port.ContainerPort)
		}
	}
	for _, a := range cmd.Flags().Args() {
		if !filepath.IsAbs(a) {
			if _, err := schema.ParseDataset(a); err != nil {
				t.Error(err)
			}
		} else if text, err := os.ReadFile(a); err != nil {
			t.Error(err)
		} else if _, err := schema.ParseManifest(text); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}
