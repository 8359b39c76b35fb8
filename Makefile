# `make demo` and `make test` are all a newcomer needs; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(CURDIR)/target
CACHE  ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/collective
BIN    := $(CARGO_TARGET_DIR)/debug
CARGO  := cargo --locked
# Holds a Node.js only where the machine's own is too old for the dashboard.
NODE   := $(CACHE)/tools/node
export PATH := $(NODE)/node_modules/.bin:$(PATH)
# Else Node.js and Playwright leave compiled code in /tmp.
export NODE_DISABLE_COMPILE_CACHE := 1
export PWTEST_CACHE_DIR := $(CACHE)/playwright
# Where the demo keeps everything it makes; removed at its end.
STATE  ?= /var/lib/collective/playground/demo

.PHONY: help deps web policies build appliances demo demo-networks demo-life test check unit browser deny fuzz policy-kit bench-demo bench-streamer bench-netd bench-plugins clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

deps: ## install what building and testing needs (apt, npm), saying what
	@packaging/install-dependencies.sh
	@command -v cargo >/dev/null || { echo "no Rust toolchain: install one with rustup (https://rustup.rs)" >&2; exit 1; }
	@packaging/install-node.sh $(NODE)

web: ## build the dashboard (web/dist)
	@packaging/install-node.sh --check $(NODE)
	@packaging/step.sh "dashboard" web/dist/.stamp web -- bash -c 'cd web && npm ci --no-audit --no-fund --no-progress --loglevel=error && npm run --silent build'

policies: ## build the first-party policies as WebAssembly components
	@$(CARGO) xtask policies --out $(CARGO_TARGET_DIR)/policies

build: web ## build every daemon and the command line
	@echo "build: daemons and command line (the first build compiles about 400 crates: 10 to 15 minutes on 2 cores)"
	@$(CARGO) build --workspace
	@$(MAKE) --no-print-directory policies

appliances: ## build the two demo appliances (cached under $(CACHE))
	@integration/appliances/build.sh --out $(CACHE)/appliances --cache $(CACHE)/debs gateway workspace

demo: deps build appliances ## the main job, end to end; CHECK=1 verifies every claim and ends; PORT=N serves elsewhere than 8443
	@$(BIN)/collective-demo $(if $(CHECK),--check) $(if $(PORT),--port $(PORT)) --binaries $(BIN) --policies $(CARGO_TARGET_DIR)/policies \
	  --appliances $(CACHE)/appliances --state $(STATE) --web web

demo-networks: deps build ## networks with real guests: NAT, watching, explaining, interposing; CHECK=1 and PORT=N as for demo
	@integration/appliances/build.sh --out $(CACHE)/appliances --cache $(CACHE)/debs station wire
	@$(BIN)/collective-demo --story networks $(if $(CHECK),--check) $(if $(PORT),--port $(PORT)) --binaries $(BIN) --policies $(CARGO_TARGET_DIR)/policies \
	  --appliances $(CACHE)/appliances --state $(STATE) --bundle integration/demo/networks.yaml --figures bench/networks.json

demo-life: deps build ## the life of an appliance: updates, checkpoints, moves, a lost host; CHECK=1 and PORT=N as for demo
	@integration/appliances/build.sh --out $(CACHE)/appliances --cache $(CACHE)/debs station
	@$(BIN)/collective-demo --story life $(if $(CHECK),--check) $(if $(PORT),--port $(PORT)) --binaries $(BIN) --policies $(CARGO_TARGET_DIR)/policies \
	  --appliances $(CACHE)/appliances --state $(STATE) --bundle integration/demo/life.yaml --figures bench/life-demo.json

check: ## format, lints, structure
	@echo "check: rustfmt"; cargo fmt --all --check
	@echo "check: clippy"; $(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@echo "check: dashboard types"; cd web && npm run --silent lint

unit: ## every Rust test and the policies' own
	@$(CARGO) test --workspace --all-targets --quiet -- --test-threads=4
	@cd plugins/policies && cargo test --locked --quiet

browser: ## the dashboard's own tests, in headless Chromium
	@cd web && npm test --silent && npm run --silent e2e

policy-kit: ## every template of a policy builds outside of our tree and answers; downloads are kept under $(CACHE)
	@# The whole workspace: one crate alone would have its dependencies built anew with fewer features.
	@$(CARGO) build --quiet --workspace
	@plugins/kit/try.sh $(BIN)/collective $(CACHE)/policy-kit

deny: ## licences, sources and bans of all crates (cargo-deny; installed under the cache at first use)
	@packaging/deny.sh $(CACHE)/tools

fuzz: ## fuzz every parser of bytes from strangers; SECONDS=20 each
	@fuzz/run.sh $(CACHE) $(or $(SECONDS),20)

test: deps ## everything CI runs
	@packaging/test.sh

bench-demo: ## the demo's figures, written to bench/demo.json
	@$(MAKE) --no-print-directory demo CHECK=1

bench-streamer: deps appliances ## the streamer's figures, written to bench/streamer.json; ONLY=boot,warm,... ROUNDS=N OUT=FILE
	@echo "bench-streamer: release builds (the first takes 5 to 10 minutes on 2 cores)"
	@$(CARGO) build --release --quiet -p streamer-daemon -p bench
	@$(CARGO_TARGET_DIR)/release/collective-bench streamer --streamer $(CARGO_TARGET_DIR)/release/collective-streamer \
	  --appliances $(CACHE)/appliances $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(OUT),--out $(OUT))

bench-netd: deps ## netd's figures, written to bench/netd.json; ONLY=scale,hostile,... ROUNDS=N OUT=FILE
	@echo "bench-netd: release builds (the first takes 5 to 10 minutes on 2 cores)"
	@$(CARGO) build --release --quiet -p netd-daemon -p bench
	@$(CARGO_TARGET_DIR)/release/collective-bench netd --netd $(CARGO_TARGET_DIR)/release/collective-netd \
	  $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(OUT),--out $(OUT))

bench-plugins: deps ## the policies' figures, written to bench/plugins.json; ONLY=call,place,... ROUNDS=N OUT=FILE
	@echo "bench-plugins: release builds (the first takes 5 to 10 minutes on 2 cores)"
	@$(MAKE) --no-print-directory policies
	@$(CARGO) build --release --quiet -p bench
	@$(CARGO_TARGET_DIR)/release/collective-bench plugins --policies $(CARGO_TARGET_DIR)/policies \
	  $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(OUT),--out $(OUT))

clean: ## remove what builds made here; caches under $(CACHE) stay
	rm -rf target web/dist web/node_modules
