# Two commands do everything on a fresh machine: `make demo` and `make test`.
#
# Nothing but Python 3.11 or newer is needed; each target makes the environment that it
# uses, in $(VENV), and is quick the second time. Options go in ARGS:
#     make test ARGS="tests/contracts -x"
#     make demo ARGS="--headless --seconds 20"
#     make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

bin := $(VENV)/bin
python := $(bin)/python
peers := $(VENV)/peers
pip := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore $(python) -m pip -qq

# constraints.txt has two parts, and this line between them. The demo needs the first
# only, so it neither waits for the tools of development nor fails where one has no wheel.
cut := \# --- development only ---

.DELETE_ON_ERROR:
.PHONY: help demo console test soak sabotage lint bench snapshots constraints clean

help:
	@echo "make demo         crawl the standard library's documentation, with a console to watch it heal"
	@echo "make console      attach a console to the runtime that is running (ARGS: see treewarden attach --help)"
	@echo "make test         every test, in random order, on every core (ARGS: see pytest --help)"
	@echo "make soak         kills, faults and random histories, many more of them (SOAK: times as many; SEED)"
	@echo "make sabotage     break one promise after the other, and see a test turn red (ARGS: words of names)"
	@echo "make lint         format, lint, types, import layers"
	@echo "make bench        ours beside bare designs and peers, against the goals (ARGS: --rounds N)"
	@echo "make snapshots    draw the console's pictures again"
	@echo "make constraints  pin the dependencies again (UPGRADE=1: to their newest versions)"
	@echo "make clean        remove everything that make made"

# --- environments -----------------------------------------------------------------------

$(python):
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "make: there is no $(PYTHON); name a Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: treewarden needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1); name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) comes without venv and ensurepip; install them (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV)

$(VENV)/run.stamp: constraints.txt pyproject.toml | $(python)
	@echo "make: installing what treewarden runs on into $(VENV)"
	@sed '/^$(cut)/,$$d' constraints.txt > $(VENV)/run.txt
	@$(pip) install --require-hashes -r $(VENV)/run.txt
	@$(pip) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@echo "make: installing what treewarden is developed with into $(VENV)"
	@$(pip) install --require-hashes -r constraints.txt
	@touch $@

# The peers of the benchmarks live apart: what they need is none of the project's business.
$(VENV)/peers.stamp: tests/benchmarks/peers.txt | $(python)
	@echo "make: installing the peers of the benchmarks into $(peers)"
	@"$(PYTHON)" -m venv --clear $(peers)
	@$(subst $(python),$(peers)/bin/python,$(pip)) install --require-hashes -r tests/benchmarks/peers.txt
	@touch $@

# --- using it ---------------------------------------------------------------------------

demo: $(VENV)/run.stamp
	@$(bin)/treewarden demo $(ARGS)

console: $(VENV)/run.stamp
	@$(bin)/treewarden attach $(ARGS)

# --- developing it ----------------------------------------------------------------------

# A process for each core; tests/conftest.py says who runs when, so they are dealt out
# one by one. In one process, with what tests print: ARGS="-n0 -s".
workers := -n auto --maxprocesses 4 --maxschedchunk 1

test: $(VENV)/dev.stamp
	@$(python) -m pytest $(workers) $(ARGS)

SOAK ?= 10
soaked := $(patsubst %,tests/system/test_%.py,kill points disk_faults slow_disk transaction_kill) \
  tests/runtime/agents/test_transaction_flaws.py \
  $(addprefix tests/runtime/,store bus resilience coordination)

# In one process, since it prints how much was tried; and nothing that takes long hangs.
soak: $(VENV)/dev.stamp
	@SOAK=$(SOAK) HYPOTHESIS_PROFILE=soak \
	  $(python) -m pytest -s -o faulthandler_timeout=0 $(or $(ARGS),$(soaked))

sabotage: $(VENV)/dev.stamp
	@$(python) -m tests.sabotage $(ARGS)

lint: $(VENV)/dev.stamp
	$(bin)/ruff format --check runtime console tests assets
	$(bin)/ruff check runtime console tests assets
	$(bin)/mypy
	$(bin)/lint-imports

# BEAM rows need elixir as well; what is missing is named and fails nothing.
bench: $(VENV)/run.stamp $(VENV)/peers.stamp
	@failed=0; for script in agents registry supervision store collections bus resilience; do \
	  ANCHOR_PYTHON_PYKKA_CALLS=$(peers)/bin/python ANCHOR_PYTHON_PYTHON_SUPERVISION=$(peers)/bin/python \
	  ANCHOR_PYTHON_PERSISTENCE_PEERS=$(peers)/bin/python ANCHOR_PYTHON_BREAKERS=$(peers)/bin/python \
	  ANCHOR_PYTHON_BUSES=$(peers)/bin/python \
	  $(python) tests/benchmarks/bench_$$script.py --compare $(ARGS) || failed=1; \
	done; exit $$failed

snapshots: $(VENV)/dev.stamp
	$(python) -m pytest tests/console --snapshot-update $(ARGS)

# The resolver lives in an environment of its own that is thrown away. Pins that still
# fit are kept: an upgrade is a decision (a new Textual redraws every picture).
compile = "$$work/bin/uv" pip compile -q --universal --python-version 3.11 --no-python-downloads \
  --generate-hashes --no-annotate --no-header --no-emit-index-url $(if $(UPGRADE),--upgrade) pyproject.toml

constraints:
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	"$(PYTHON)" -m venv "$$work"; \
	PIP_DISABLE_PIP_VERSION_CHECK=1 "$$work/bin/pip" -qq install uv; \
	{ cp constraints.txt "$$work/all.txt" 2>/dev/null || true; }; \
	$(compile) --group dev -o "$$work/all.txt" >/dev/null; \
	$(compile) --group build -c "$$work/all.txt" -o "$$work/run.txt" >/dev/null; \
	{ echo "# Every pin with the hash of every file, for Python 3.11 to 3.14 on Linux and macOS."; \
	  echo "# Made by 'make constraints' from pyproject.toml; do not edit."; \
	  echo "# --- run time and build ---"; \
	  cat "$$work/run.txt"; \
	  echo "$(cut)"; \
	  awk 'NR == FNR { if (/^[a-z0-9]/) first[$$1] = 1; next } /^[a-z0-9]/ { keep = !($$1 in first) } keep' \
	    "$$work/run.txt" "$$work/all.txt"; \
	} > "$$work/constraints.txt"; \
	mv "$$work/constraints.txt" constraints.txt; \
	$(subst pyproject.toml,tests/benchmarks/peers.in,$(compile)) -o tests/benchmarks/peers.txt >/dev/null
	@grep -c == constraints.txt | sed 's/^/make: pinned packages: /'

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache snapshot_report.html
	find runtime console tests -name __pycache__ -type d -prune -exec rm -rf {} +
