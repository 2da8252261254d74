# The few verbs of the project. `make test` is what CI runs too.
.PHONY: build test bench lint fuzz

GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   = golang.org/x/vuln/cmd/govulncheck@v1.9.0

build:
	go build -o bin/dray ./cmd/dray

test:
	./scripts/need-redis
	go vet ./...
	go test -race -timeout 20m ./...

bench:
	go test -run '^$$' -bench . -benchmem ./...

lint:
	go run $(GOLANGCI_LINT) run ./...
	./scripts/vulncheck $(GOVULNCHECK)

# each fuzz test for a little while; FUZZTIME=10m for a long one, 10000x by count
FUZZTIME ?= 20s
fuzz:
	./scripts/fuzz $(FUZZTIME)
