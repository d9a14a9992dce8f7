# make app        opens the app on the bundled demo atlas   (ATLAS=path opens another, or a folder of several, PORT=8501, HOST=127.0.0.1)
# make test       runs every test, the browser ones included
# make test-fast  runs the tests of the statistics, the atlas, the figures and the recipes, under a minute
# make lint       ruff and mypy
# make screenshots  takes every page, 1400 and 390 wide, light and dark, into tests/artifacts/pages
# make docs       builds the documentation into site/
# make lock       resolves the requirements again: requirements*.txt and the lock files
PYTHON ?= python3
ATLAS ?=
HOST ?= 127.0.0.1
PORT ?= 8501
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Torch has a build for every platform and CUDA version, so its files cannot be pinned by hash for all of them.
TORCH := $(shell sed -n 's/^\(torch[>=].*\)/\1/p' requirements.txt)
FAST := $(addprefix tests/engine/,atlas blindspots figures reports vision test_checkpoints.py test_files.py test_jobs.py) \
  $(addprefix tests/precompute/,test_recipe.py test_runner.py) tests/test_architecture.py

.PHONY: app test test-fast lint docs lock clean chromium screenshots

app: $(VENV)/installed
	$(BIN)/python -m precompute app $(ATLAS) --host $(HOST) --port $(PORT)

test: $(VENV)/installed-dev chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-fast: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not browser" $(FAST)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

screenshots: $(VENV)/installed-dev chromium
	$(BIN)/python -m tests.screenshots

docs: $(VENV)/installed-dev
	$(BIN)/mkdocs build --strict --quiet

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Blindspot Atlas needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.lock requirements.txt | $(VENV)/bin/python
	$(PIP) --require-hashes --no-deps -r requirements.lock
	$(PIP) "$(TORCH)"
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock requirements.txt tests/oracles.txt | $(VENV)/bin/python
	$(PIP) --require-hashes --no-deps -r requirements-dev.lock
	$(PIP) "$(TORCH)"
	$(PIP) --no-deps -r tests/oracles.txt || echo "oracle libraries are missing: the tests that need them will skip"
	@touch $(VENV)/installed $@

# The browser tests drive Debian's chromium; without it (and without the right to install it) they skip and say so.
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; }; \
	} || echo "chromium is missing and cannot be installed here: the browser tests will skip"

lock: $(VENV)/bin/python
	$(PIP) uv
	$(BIN)/python tests/requirements.py --write
	PATH="$(BIN):$$PATH" $(BIN)/python tests/requirements.py --lock

clean:
	rm -rf $(VENV) .work site tests/artifacts
