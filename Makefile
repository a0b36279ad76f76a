# Two commands: `make repro` runs the whole pipeline, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup repro test test-slow benchmark benchmark-tables mutants fuzz sbom audit check format lock clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Fivefold needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -e .  # and torch, at its one version
	$(BIN)/python -c "from pathlib import Path; from pipelines.cli.privacy import secure_site_cache; secure_site_cache(Path())"
	@touch $@

repro: setup
	fivefold pipeline
	dvc repro

test: setup
	pytest -m "not slow"

test-slow: setup
	pytest

benchmark: setup
	python benchmarks/peers $(ARGS)

benchmark-tables: setup
	python benchmarks/peers/tables $(ARGS)

mutants: setup
	python -m benchmarks.mutants $(ARGS)

fuzz: setup
	python -m benchmarks.fuzz $(ARGS)

sbom: setup
	@python -m benchmarks.supply sbom

audit: setup
	@python -m benchmarks.supply audit

check: setup
	ruff format --check .
	ruff check .
	basedpyright
	lint-imports

format: setup
	ruff format .
	ruff check --fix .

lock:
	rm -rf .lock-venv
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet uv
	PATH=$(CURDIR)/.lock-venv/bin:$$PATH $(PYTHON) -m benchmarks.supply lock $(ARGS)
	rm -rf .lock-venv

clean:
	rm -rf runs data/prepared mlflow.db mlruns mlartifacts
