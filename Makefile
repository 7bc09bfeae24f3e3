GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 5s

.PHONY: build test race check lint fuzz chaos integration bench clean

build:
	$(GO) build -o kvs .

test:
	$(GO) test ./...

race:
	$(GO) test -race ./...

# check is what CI runs, but for the integration test.
check: lint race fuzz

lint:
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# fuzz runs every fuzz target for FUZZTIME.
fuzz:
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package | tail -n 1; \
		done; \
	done

# chaos simulates cuts, losses and restarts over many seeds.
SEEDS ?= 200
chaos:
	$(GO) test ./cluster -run Chaos -seeds $(SEEDS) -timeout 60m

integration: build
	KVS=./kvs ./integration_test.sh

# bench prints a table of figures; see docs/BENCHMARKS.md. DOCS=FILE imports real documents.
bench:
	$(GO) run ./bench $(if $(DOCS),-docs $(DOCS))

clean:
	rm -f kvs
