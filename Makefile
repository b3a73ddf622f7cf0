# Every target sets up what it needs in .venv; PYTHON names the interpreter to make it with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find lotto_mlflow tests -name '*.py')
DRAWS ?=
LONG ?=
EVERY ?=
ROWS ?=
SCRATCH ?= .example/ml
PICTURES := runs compare list
# the oldest releases that pyproject.toml allows, and the last numpy for the oldest Python: whoever
# has later ones can open what they write
EXAMPLE_VENV := .venv-example
EXAMPLE_PINS := 'scikit-learn==1.6.*' 'mlflow==3.17.*' 'numpy==2.2.*' 'matplotlib>=3.10.8,<4'

TOOLS_VENV := .venv-tools

.DEFAULT_GOAL := help
.PHONY: help demo example ui artefact test test-server test-matrix faults bench bench-peers check format
.PHONY: lint types workflow coverage package screenshots loaders clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.package  ## Train, save, look up and predict, in .demo/ (DRAWS=FILE for a real history)
	$(BIN)/python -m lotto_mlflow.demo --directory .demo $(if $(DRAWS),--draws "$(DRAWS)")

ui: $(VENV)/.package  ## Look at a scratch copy of mlruns_example/ in the MLflow UI; Ctrl-C ends it
	$(BIN)/python mlruns_example/scratch.py "$(SCRATCH)"
	@MLFLOW_TRACKING_URI= MLFLOW_REGISTRY_URI= $(BIN)/lotto-mlflow ui --base-dir "$(SCRATCH)"

example: $(EXAMPLE_VENV)/.ready  ## Build mlruns_example/ again, with the oldest supported scikit-learn
	$(EXAMPLE_VENV)/bin/python mlruns_example/build.py

artefact: $(EXAMPLE_VENV)/.ready  ## Write tests/artefacts/RELEASE/, a folder that later releases open
	PYTHONPATH=tests $(EXAMPLE_VENV)/bin/python -m artefacts.build

test: $(VENV)/.test  ## Run the tests
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n 2 --dist loadgroup --ignore=tests/faults --ignore=tests/integration --cov --cov-report=

test-server: $(VENV)/.test  ## Run MLflow's server over PostgreSQL and SeaweedFS (TABLE=1 writes the table)
	rm -rf .server && mkdir .server
	LOTTO_SERVER_FIGURES=$(CURDIR)/.server LOTTO_SERVER_LONG=$(LONG) $(BIN)/python -m pytest tests/integration
	PYTHONPATH=tests $(BIN)/python -m integration.report .server $(if $(TABLE),--write tests/integration/README.md)

test-matrix: $(TOOLS_VENV)/.ready  ## Test with the lowest and newest releases (ROWS=3.10-lowest some)
	$(TOOLS_VENV)/bin/python tests/matrix.py --rows "$(ROWS)"

package: $(TOOLS_VENV)/.ready  ## Build dist/, check it, and try it in an empty environment
	$(TOOLS_VENV)/bin/python tests/package.py

faults: $(VENV)/.test  ## Kill, damage and cut off; print what was lost (EVERY=3: a third; TABLE=1; LONG=1: 1 h)
	rm -rf .faults && mkdir .faults
	LOTTO_FAULT_FIGURES=$(CURDIR)/.faults LOTTO_FAULTS_LONG=$(LONG) LOTTO_FAULTS_EVERY=$(EVERY) $(BIN)/python -m pytest -n 2 --dist worksteal -m faults tests/faults
	$(BIN)/python tests/faults/report.py .faults $(if $(TABLE),--write tests/faults/README.md)

bench: $(VENV)/.test  ## Measure the speed targets (ROWS=P1,P6 some; TABLE=1 writes the tables)
	PYTHONPATH=tests $(BIN)/python -m bench --rows "$(ROWS)" $(if $(TABLE),--write tests/bench/README.md README.md)

bench-peers: $(VENV)/.test  ## Install pins, modelstore, skops and BentoML in .bench/, and measure them, too
	PYTHONPATH=tests $(BIN)/python -m bench --rows "$(or $(ROWS),none)" --peers $(if $(TABLE),--write tests/bench/README.md README.md)

screenshots: $(VENV)/.test  ## Look at the MLflow UI in Chromium; renew the pictures of the README
	$(BIN)/python -m pytest tests/browser
	mkdir -p mlruns_example/screenshots
	cp $(PICTURES:%=.screenshots/%.png) mlruns_example/screenshots/

loaders: $(VENV)/.package  ## List the digests of the loader that this release puts into models
	$(BIN)/python tests/loaders/add.py

check: format lint types workflow coverage  ## Check format, lint, types, workflows, and coverage

format: $(VENV)/.check
	$(BIN)/ruff format --check .

lint: $(VENV)/.check
	$(BIN)/ruff check .

types: $(VENV)/.check
	$(BIN)/mypy

workflow: $(VENV)/.check
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

coverage: .coverage
	$(BIN)/coverage report

.coverage: $(SOURCES)
	$(MAKE) test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.package: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test,estimators]'
	touch $@ $(VENV)/.package

$(VENV)/.check: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[test,estimators,check]'
	touch $@

$(EXAMPLE_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(EXAMPLE_VENV)
	$(EXAMPLE_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(EXAMPLE_VENV)/bin/python -m pip install --quiet --editable '.[signing]' $(EXAMPLE_PINS)
	touch $@

$(TOOLS_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(TOOLS_VENV)/bin/python -m pip install --quiet --group release
	touch $@

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(EXAMPLE_VENV) $(TOOLS_VENV) .matrix dist .demo .example .faults .server .bench .screenshots .coverage .coverage.*
	rm -rf .pytest_cache .mypy_cache .ruff_cache
