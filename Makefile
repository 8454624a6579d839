# Every target calls what it needs: `make demo`, `make serve` and `make test` work in a fresh clone.
# Needs Python 3.11 or newer: `make demo PYTHON=python3.12` to choose one.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# By the environment, so that it goes for what pip builds with, too; newer versions have a variable of its own for that.
PIP    := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet
CODE   := export engines server clients/python bench tests
MODEL  ?= street
PORT   ?= 8080

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo serve test fuzz packages check check-gpu check-web vendor format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.serving ## Prepare .venv for serving (no torch)

setup-dev: $(VENV)/.dev ## Prepare .venv for everything: serving, demo, training, tests

demo: $(VENV)/.demo ## Stream a real street video through a real server: out/bikes.mp4, out/bikes.ndjson, a table
	$(BIN)/keywarp demo --model $(MODEL)

serve: $(VENV)/.serving ## Start the server with the shipped bundle
	$(BIN)/keywarp serve --port $(PORT)

test: $(VENV)/.dev ## Run the tests
	$(BIN)/python -m pytest $(PYTEST)

FUZZ_RUNS ?= 1000000
fuzz: $(VENV)/.dev ## Fuzz the parsers of all that comes from outside, 1,000,000 runs each: make fuzz FUZZ_RUNS=...
	for target in framing messages labels infer manifest site text image; do \
		echo "$$target:" && mkdir -p .cache/keywarp/fuzz && $(BIN)/python -m tests.fuzz.parsers $$target .cache/keywarp/fuzz/$$target \
			-atheris_runs=$(FUZZ_RUNS) -max_len=4096 -artifact_prefix=.cache/keywarp/fuzz/crash-$$target- -verbosity=0 || exit 1; \
	done

packages: ## Install the Debian packages that some end-to-end tests use (they are skipped without)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive xargs -a tests/e2e/packages.txt apt-get install -qq --no-install-recommends --yes

check: $(VENV)/.dev ## Lint, format check, types, import rules, Dockerfiles
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint docker/Dockerfile.*

check-gpu: $(VENV)/.gpu-check ## Compile the GPU's code for every generation of cards (needs no GPU)
	$(BIN)/python -m pytest -m gpu_check $(PYTEST)

check-web: ## Check the types of the JavaScript and run its tests (needs npm)
	cd clients/web && npm ci --silent && npm run --silent check && npm test --silent

vendor: ## Copy uPlot and RapiDoc from npm into the dashboard, after a change of their versions (needs npm)
	cd clients/web && npm ci --silent && node vendor.mjs

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

lock: $(VENV)/.dev ## Write the versions in .venv to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean: ## Remove .venv, caches and out/
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Keywarp needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

PROJECTS := pyproject.toml clients/python/pyproject.toml constraints.txt

$(VENV)/.serving: $(PROJECTS) | $(BIN)/python
	$(PIP) -e clients/python -e '.[cpu,server]'
	@touch $@

$(VENV)/.demo: $(PROJECTS) | $(BIN)/python
	$(PIP) -e clients/python -e '.[cpu,server,demo]'
	@touch $@ $(VENV)/.serving

$(VENV)/.dev: $(PROJECTS) | $(BIN)/python
	$(PIP) -e clients/python -e '.[cpu,server,demo,train,dev]'
	@touch $@ $(VENV)/.demo $(VENV)/.serving

$(VENV)/.gpu-check: $(VENV)/.dev
	$(PIP) -e '.[gpu-check,nvdec,rtx]'
	@touch $@
