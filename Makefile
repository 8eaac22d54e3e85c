# Each target makes the virtual environment it needs; nothing needs root.
#   make demo PYTHON=python3.12          another interpreter
#   make demo PIP_ARGS="--index-url ..." where packages come from
#   make test TEST_PROCESSES=1           one file of tests after the other

PYTHON ?= python3
PIP_ARGS ?=
TEST_PROCESSES ?= 2
# All tests of a file in one process; one that ends the interpreter ends the run.
IN_PROCESSES := --numprocesses $(TEST_PROCESSES) --dist loadfile --max-worker-restart 0
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-avx2 test-compiled test-gpu check format stubs generated install clean

demo: $(INSTALLED)  ## serve, classify and load-test real images; about a minute
	$(BIN)/python examples/demo.py

test: $(INSTALLED)  ## every test that needs no GPU
	$(BIN)/python -m pytest $(IN_PROCESSES)

test-avx2: $(INSTALLED)  ## the tests of the networks, held to the instruction set of an older processor
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest $(IN_PROCESSES) tests/models

test-compiled: $(INSTALLED)  ## the tests of a wheel whose core is compiled; needs a C compiler
	$(BIN)/python -m pytest --compiled tests/compiled

test-gpu: $(INSTALLED)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest --gpu tests/gpu

check: $(INSTALLED)  ## format, lint, types, import contracts, protocol files, stubs
	scripts/check

format: $(INSTALLED)  ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stubs: $(INSTALLED)  ## write the Python stubs of proto/
	scripts/generate-stubs

generated: $(INSTALLED)  ## write docs/metrics.md, the dashboard and its page, files for clusters
	$(BIN)/python -m scripts.metrics_page
	$(BIN)/python ops/grafana/dashboard.py
	$(BIN)/python -m scripts.cluster_files

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "$(PYTHON) is older than 3.11; run make with PYTHON=python3.11 or newer" >&2; exit 1; }
	@echo "installing into $(VENV): some minutes, as torch is large; a failure says so"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist
