# One command each for a person and for CI. `make` alone says which.
#
# Everything is built in cargo's debug profile but the filter, so that `demo` and `test` share one build.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build wasm wasm-crash demo test torture fuzz schedules bench profile lint clean

TARGET := $(or $(CARGO_TARGET_DIR),target)
WASM := $(TARGET)/wasm32-wasip1/wasm/kaeru_filter.wasm
# Every proxy of a mesh fetches and compiles the filter: above this, which is the goal, the build fails.
WASM_BYTES_MAX := 200000

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing (Rust's wasm target, Postgres, Envoy); safe to repeat
	@scripts/setup

build: setup wasm ## build the filter and every program
	cargo build --locked --workspace

wasm: setup ## build the filter, say its size
	cargo rustc --locked --package kaeru-filter --lib --crate-type cdylib --target wasm32-wasip1 --profile wasm
	@scripts/wasm-size "$(WASM)" "$(WASM_BYTES_MAX)"

wasm-crash: setup ## build the filter that dies when it is asked to, for tests
	cargo rustc --locked --package kaeru-filter --lib --crate-type cdylib --target wasm32-wasip1 --profile wasm --features crash --target-dir "$(TARGET)/crash"

demo: build ## show it: a small shop, real proxies, one failed order (ONCE=1: check the story and end)
	@exec "$(TARGET)/debug/demo" $(if $(filter-out 0,$(ONCE)),--once)

test: setup wasm wasm-crash ## run every test, and every attack in its quick form
	cargo build --locked --workspace --all-targets
	cargo test --locked --workspace
	cargo test --locked --package kaeru-e2e --test attacks
	@own_disk=$$(mktemp -d); skip=; \
	if mount -t tmpfs tmpfs "$$own_disk" 2>/dev/null; then umount "$$own_disk"; else skip="--skip a_full_disk_is_survived"; \
	  echo "test: a disk of its own, to fill it, cannot be mounted here (needs root): a_full_disk_is_survived() is NOT run"; fi; \
	rmdir "$$own_disk"; \
	cargo test --locked --package kaeru-e2e --test break -- $$skip

torture: setup wasm wasm-crash ## every attack in its long form (SEED=7: other chances, ONLY=kills: one; docs/TORTURE.md)
	cargo build --locked --workspace --all-targets
	cargo build --locked --release --package kaeru-aggregator
	@scripts/torture

fuzz: setup ## fuzzing led by coverage, every parser (ONLY=policy: one; FOR=60: seconds each; docs/TORTURE.md)
	@scripts/fuzz "$(ONLY)" "$(or $(FOR),60)"

schedules: setup ## schedules of the simulation (ARGS="--seed 7": the story of one; docs/SIMULATION.md)
	cargo run --locked --package kaeru-sim --bin torture -- $(ARGS)

bench: setup ## measure it, release builds, and write docs/BENCHMARKS.md (ONLY=filter: one part; REPORTS=20000000: how many scale stores; EVENTS_S=100: how long memory sends live events)
	cargo build --locked --package kaeru-filter --example empty --example hostcalls --target wasm32-wasip1 --profile wasm
	@# After the examples, which bring a larger build of the filter along.
	@$(MAKE) --no-print-directory wasm
	cargo build --locked --release --package kaeru-aggregator --package kaeru-e2e --package kaeru-bench
	@exec "$(TARGET)/release/bench" $(if $(ONLY),--only $(ONLY)) $(if $(REPORTS),--reports $(REPORTS)) $(if $(EVENTS_S),--events-s $(EVENTS_S))

profile: setup ## where the filter's own instructions go, counted by valgrind (docs/BENCHMARKS.md, "Filter")
	CARGO_PROFILE_RELEASE_DEBUG=1 cargo build --locked --release --package kaeru-filter --features simulated --example profile
	valgrind --tool=callgrind --callgrind-out-file=build/profile.out "$(TARGET)/release/examples/profile"
	callgrind_annotate --inclusive=yes build/profile.out | grep kaeru_filter | head -40

lint: setup ## formatting, lints, and the crates that we may use
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	cargo clippy --locked --package kaeru-e2e --test break --test attacks -- --deny warnings
	cargo clippy --locked --package kaeru-filter --target wasm32-wasip1 -- --deny warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --offline --locked check licenses bans sources; \
	else echo "lint: cargo-deny is not installed, so licences and sources stay unchecked here; the layering is checked by make test"; fi

clean: ## remove what was built
	cargo clean
	rm -rf build
