# make demo    a phantom data set through the whole chain, without any download of data
# make test    the tests but the slow ones               make test-all    all tests
# make coverage    the same as make test, a quarter slower, and which lines they run
# make lint    style, types, import contracts, shell      make docs        the documentation site
# make clean       remove what the others made
# make image   the Docker image (docs/docker.md)         make test-container    builds and tests it
# make dist    wheel and sdist in dist/, checked, installed, and the demo run from them (docs/releasing.md)
# make test-cluster   the recipes of workflows/ on a real SLURM and Apptainer
# make test-browser   the pages in Chromium (with those of make demo); make browser-tools gets axe-core
# make test-engines   the recipes for Boutiques, Nipoppy and Snakemake, with these tools
# make test-datalad   data sets of DataLad, whose files are fetched and dropped
# make test-oldest   some tests with the oldest dependencies that pyproject.toml allows
# Everything happens in .venv, which is installed with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' brainlm_bids/__init__.py)
DOCKER ?= docker
DOCKER_BUILD ?=
OLDEST := .venv-oldest
ENGINES := .venv-engines
DATALAD := .venv-datalad
FROM_WHEEL := .venv-dist
OLDEST_TESTS := tests/preproc/denoising tests/parcels tests/bids tests/cohort tests/test_settings.py \
  tests/preproc/distortion/test_phase.py tests/model --ignore=tests/model/test_transformers.py \
  $(addprefix --deselect=tests/bids/test_fmriprep_derivatives.py::test_,a_strategy_of_nilearn \
    aroma_runs_on_fmripreps_output_with_old_names the_other_template_needs_templateflows_transform)
# a file's tests stay together: they share what they compute once; the longest files come first
# (tests/conftest.py)
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
# A thread per process, since two processes share the cores: threads that wait for one another
# would take more than half of the time.
test coverage test-all test-oldest test-browser test-engines test-datalad: export OMP_NUM_THREADS = 1
PHANTOM := demo/.phantom
# where the demo's programs are: `make dist` runs it with those of the wheel
PROGRAMS ?= $(BIN)
SCRIPTS := .ci/run docker/install-torch docker/test docker/with-ca workflows/test workflows/slurm/*.sh

.PHONY: venv demo test coverage test-all test-oldest test-engines test-datalad test-browser browser-tools test-container test-cluster image lint docs dist clean

venv: $(INSTALLED)

$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs,release]'
	# a test compares with its functions; what it depends on is not needed for these
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps mriqc
	touch $@

QUICK := not slow and not container and not cluster and not browser and not engines and not datalad
test: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) -m "$(QUICK)"

coverage: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term:skip-covered -m "$(QUICK)"

test-all: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) -m "not container and not cluster and not browser and not engines and not datalad"

# the numerics, the networks and one whole run, with the oldest dependencies that pyproject.toml allows
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest $(PARALLEL) \
	  -m "not slow and not container and not cluster" $(OLDEST_TESTS)

$(OLDEST)/.installed: constraints.txt pyproject.toml .ci/oldest.py
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet $(TORCH)
	$(PYTHON) .ci/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet -c $(OLDEST)/constraints.txt -e . pytest pytest-xdist hypothesis
	touch $@

# REQUIRED=1: a missing engine is a failure, not a skip
test-engines: $(INSTALLED) $(ENGINES)/.installed
	$(BIN)/python -m pytest -m engines tests/app/test_engines.py

# the list is complete, so that nothing has to be resolved, and little of it is used
$(ENGINES)/.installed: .ci/engines.txt | $(INSTALLED)
	$(PYTHON) -m venv --without-pip $(ENGINES)
	$(BIN)/python -m pip --python $(ENGINES)/bin/python install --quiet --no-deps --no-compile -r .ci/engines.txt
	touch $@

# REQUIRED=1: a missing DataLad is a failure, not a skip
test-datalad: $(INSTALLED) $(DATALAD)/.installed
	$(BIN)/python -m pytest -m datalad tests/app/test_datalad.py

$(DATALAD)/.installed: .ci/datalad.txt
	$(PYTHON) -m venv $(DATALAD)
	$(DATALAD)/bin/python -m pip install --quiet --no-deps -r .ci/datalad.txt
	touch $@

# axe-core, of the version and the sha512 in package-lock.json
AXE := tests/browser/node_modules/.package-lock.json
browser-tools: $(AXE)

$(AXE): tests/browser/package-lock.json
	npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund
	touch $@

# REQUIRED=1: a missing browser, axe-core or demo is a failure, not a skip
test-browser: $(INSTALLED) $(AXE)
	$(BIN)/python -m pytest $(PARALLEL) -m browser tests/browser

test-container: $(INSTALLED)
	PYTHON=$(BIN)/python docker/test

# DOCKER_BUILD: more arguments of docker build (--secret, --build-arg, --network)
image:
	DOCKER_BUILDKIT=1 $(DOCKER) build --target cpu $(DOCKER_BUILD) \
	  --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown) \
	  -t brainlm-bids:latest -t brainlm-bids:cpu .

test-cluster: $(INSTALLED)
	PYTHON=$(BIN)/python workflows/test

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck -x $(SCRIPTS)

# The site, with all links checked, in build/site; `mkdocs serve` shows it while one writes.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "$(CURDIR)/build/site/index.html"

$(PHANTOM): $(wildcard brainlm_bids/phantom/*.py) | $(INSTALLED)
	rm -rf demo
	$(PROGRAMS)/brainlm phantom demo/bids --subjects 2 --volumes 120 --seed 1
	touch $@

# The outputs are made anew each time, so that the table is always that of the code at hand.
demo: $(INSTALLED) $(PHANTOM)
	rm -rf demo/out demo/work
	$(PROGRAMS)/brainlm-bids demo/bids demo/out participant group -w demo/work --model demo --offline \
	  --atlas A424approx --template MNI152NLin2009aSym --nprocs 2
	@echo
	@echo "What was recovered of the phantom's truth:"
	@$(PROGRAMS)/brainlm phantom-score demo/bids demo/out
	@test -s demo/out/sub-01.html
	@echo
	@test -s demo/out/group.html
	@echo "$(CURDIR)/demo/out/sub-01.html"
	@echo "$(CURDIR)/demo/out/group.html"

# The wheel is built from the sdist, so that neither lacks a file, and with the time of the commit, so
# that the same commit gives the same bytes. It is installed where nothing else is.
dist: $(INSTALLED)
	rm -rf dist $(FROM_WHEEL)
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(PYTHON) -m venv $(FROM_WHEEL)
	$(FROM_WHEEL)/bin/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(FROM_WHEEL)/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	@cd / && $(CURDIR)/$(FROM_WHEEL)/bin/python -c "import brainlm_bids as b; \
	  assert '$(FROM_WHEEL)' in b.__file__, b.__file__; print(b.__file__, b.__version__)"
	$(MAKE) --no-print-directory demo PROGRAMS=$(FROM_WHEEL)/bin

clean:
	rm -rf $(VENV) $(OLDEST) $(ENGINES) $(DATALAD) $(FROM_WHEEL) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  .import_linter_cache brainlm_bids.egg-info tests/browser/node_modules
