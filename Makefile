SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The linter is run at this version whatever is installed.
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# Two packages at a time: each may start a PostgreSQL and a broker of its own.
TEST_FLAGS ?= -p 2 -timeout 15m
FUZZ_TIME ?= 30s

.PHONY: help
help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/tallyman, static
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/tallyman ./cmd/tallyman

.PHONY: cross
cross: ## build for the systems that the tests don't run on
	@for target in linux/arm64 darwin/arm64 darwin/amd64 windows/amd64; do \
		echo "$$target"; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} go build -o /dev/null ./cmd/tallyman; \
	done

.PHONY: demo
demo: ## load a million rows through an embedded broker into an embedded PostgreSQL, and verify them
	go run ./cmd/tallyman demo

.PHONY: test
test: ## run the tests; needs only Go
	go test $(TEST_FLAGS) ./...

.PHONY: test-all
test-all: out/schemathesis/bin/schemathesis ## run every test with -race, those on real Apache Kafka (JDK 17, Maven) and of Python too; a skip is a failure
	TALLYMAN_REAL_KAFKA=1 TALLYMAN_PYTHON=1 TALLYMAN_SCHEMATHESIS=$(CURDIR)/$< go run ./internal/ci/noskip -race -count=1 $(TEST_FLAGS) ./...

# It asks the HTTP daemon whatever its OpenAPI document allows.
out/schemathesis/bin/schemathesis:
	python3 -m venv out/schemathesis
	out/schemathesis/bin/pip install --quiet schemathesis==4.32.5

.PHONY: bench
bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem -p 1 -timeout 30m ./...

.PHONY: fuzz
fuzz: ## fuzz every decoder for FUZZ_TIME (30s)
	@go list -f '{{.Dir}}' ./... | while read -r dir; do \
		targets=$$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go 2>/dev/null | cut -d' ' -f2 || true); \
		for target in $$targets; do \
			echo "$$target in $$dir"; \
			(cd "$$dir" && go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) .); \
		done; \
	done

.PHONY: cover
cover: ## test, and write out/cover.html
	mkdir -p out
	go test $(TEST_FLAGS) -coverpkg ./... -coverprofile out/cover.out ./...
	go tool cover -html out/cover.out -o out/cover.html
	go tool cover -func out/cover.out | tail -n 1

.PHONY: lint
lint: ## check formatting and run the linters
	go vet ./...
	go run $(GOLANGCI) run

.PHONY: fmt
fmt: ## format the source
	go run $(GOLANGCI) fmt

.PHONY: clean
clean: ## remove what was built
	rm -rf bin out
