# make app   opens the app on the bundled demo atlas      (ATLAS=path opens another, PORT=8501)
# make test  runs every test, the browser ones included
# make lint  ruff
PYTHON ?= python3
ATLAS ?= data/demo/atlas
PORT ?= 8501
VENV := .venv
BIN := $(VENV)/bin

.PHONY: app test lint clean

app: $(VENV)/installed
	$(BIN)/streamlit run app.py --server.port $(PORT) -- $(ATLAS)

test: $(VENV)/installed-dev chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Blindspot Atlas needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt tests/oracles.txt requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/oracles.txt || echo "oracle libraries are missing: the tests that need them will skip"
	@touch $(VENV)/installed $@

# The browser tests drive Debian's chromium; without it (and without the right to install it) they skip and say so.
.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; }; \
	} || echo "chromium is missing and cannot be installed here: the browser tests will skip"

clean:
	rm -rf $(VENV) .work tests/artifacts
