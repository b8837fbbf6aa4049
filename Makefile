# The tasks people need; each says what it does when asked for `make help`.
CARGO ?= cargo
BIN = $(or $(CARGO_TARGET_DIR),target)/debug

.PHONY: help setup build demo demo-json test check bench fuzz interop sim dist check-dist release

help: ## list the tasks
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install what is missing (swtpm and friends, from Debian)
	@./scripts/setup

build: setup ## build every program
	$(CARGO) build --workspace --bins

demo: build ## the whole story on this machine: three TPMs, one compromise, one recovery
	@$(BIN)/assay demo $(DEMO_ARGS)

demo-json: build ## the same as one JSON document
	@$(BIN)/assay demo --json

test: setup ## every test: format, lints, walls, unit, property and whole-system tests
	$(CARGO) xtask check

check: test ## the same under the name developers look for

bench: setup ## figures of BENCHMARKS.md on this machine (release build)
	$(CARGO) build --release --bins
	@$(or $(CARGO_TARGET_DIR),target)/release/assay bench appraise vectors/tpm/sb-good-1
	@$(or $(CARGO_TARGET_DIR),target)/release/assay bench attest --devices 50 --seconds 8
	@$(or $(CARGO_TARGET_DIR),target)/release/assay bench identity
	@$(or $(CARGO_TARGET_DIR),target)/release/assay bench trust
	@$(or $(CARGO_TARGET_DIR),target)/release/assay bench policy
	@$(or $(CARGO_TARGET_DIR),target)/release/assay bench try

fuzz: ## every fuzz target for a minute (FUZZ_SECONDS=60)
	$(CARGO) xtask fuzz $(or $(FUZZ_SECONDS),60)

interop: setup ## other people's clients against the whole system; gets them from their registries
	@./scripts/interop
	ASSAY_INTEROP=$(CURDIR)/target/interop $(CARGO) test -p assay-system --test suite interop

sim: ## the red team against the verifier, at length (SEEDS=200000, SEED=first)
	SEEDS=$(or $(SEEDS),200000) SEED=$(or $(SEED),5000) $(CARGO) test -p assay-trust --test suite redteam

dist: setup ## packages for Debian, their sums and what is in them, in target/dist
	@./scripts/dist

check-dist: ## the packages of target/dist on a fresh Debian in a folder; as root
	@./scripts/check-dist

release: setup ## optimised programs in target/release
	$(CARGO) build --release --bins
