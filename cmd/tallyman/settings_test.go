package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/cmd/tallyman/internal/settings"
)

// reference is the page of all settings.
func reference() string {
	var b strings.Builder
	b.WriteString("# Settings\n\n" +
		"Written by `go test ./cmd/tallyman -run TestSettingsReference -update`.\n\n" +
		"A value comes from a flag; else from the environment, the name with `TALLYMAN_` first; else from `tallyman.yaml`, where\n" +
		"`kafka.brokers` is `brokers` below `kafka`; else it is the default. A command has the flags of the settings that it uses.\n" +
		"An unknown key in the file is refused, as is a limit of zero.\n")
	group := ""
	for _, s := range settings.Table() {
		if s.Group() != group {
			group = s.Group()
			fmt.Fprintf(&b, "\n## %s\n\n| setting | how it is written | default | environment | flag | |\n|---|---|---|---|---|---|\n", group)
		}
		code := func(text string) string {
			if text == "" {
				return ""
			}
			return "`" + text + "`"
		}
		environment := code(s.Env())
		for _, name := range s.Standard {
			environment += ", " + code(name)
		}
		flag := code("--" + s.Flag())
		if s.Secret {
			flag = "none: command lines can be read by everybody"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", code(s.Key), s.Unit, code(s.Default), environment, flag, s.Doc)
	}
	return b.String()
}

// The reference of settings is a file, so that it can be read without the
// program, and a change of it is seen in review.
func TestSettingsReference(t *testing.T) {
	t.Parallel()
	name := filepath.Join("..", "..", "deploy", "settings.md")
	if *update {
		if err := os.WriteFile(name, []byte(reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), reference()); diff != "" {
		t.Errorf("%s: go test ./cmd/tallyman -run TestSettingsReference -update writes it\n%s", name, diff)
	}
}

// A flag that a secret would have is none of any command.
func TestSecretsHaveNoFlag(t *testing.T) {
	t.Parallel()
	root, _ := newRoot(&program{})
	for _, s := range settings.Table() {
		if strings.HasSuffix(s.Key, "password") && !s.Secret {
			t.Errorf("%s is not marked as secret", s.Key)
		}
		for _, cmd := range commands(root) {
			if s.Secret && cmd.Flags().Lookup(s.Flag()) != nil {
				t.Errorf("%s has --%s", cmd.CommandPath(), s.Flag())
			}
		}
	}
}
