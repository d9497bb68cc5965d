# make demo   sets everything up and runs the main job on slides that it makes itself
# make test   sets everything up and runs lint, types, floors, licences and tests
# make clean  removes the environment and the demo

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types floors licences pytest clean

demo: $(VENV)/.installed
	$(BIN)/coverslip demo --out coverslip-demo

test: lint types floors licences pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

floors: $(VENV)/.installed-dev
	$(BIN)/lint-imports

licences: $(VENV)/.installed-dev
	$(BIN)/python tools/check_licences.py

pytest: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f'Coverslip needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}. Run make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Coverslip into $(VENV) (torch is large: this takes a minute or more the first time)"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Coverslip and its development tools into $(VENV) (torch is large: this takes a minute or more)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) coverslip-demo
