# make demo   train a quantum vision transformer and its classical twin, print a table, write a picture
# make study  run a study of some minutes and write its report (STUDY=paper for the paper's, of days; SEEDS=1 for fewer)
# make test   run the tests but for the slow ones, which `make test-slow` runs; `make test-quick` leaves out more
# make mutants   change the code at places drawn by chance and see whether tests fail
# make coverage   lines and branches that tests run
# make fuzz   try two hundred thousand damaged inputs
# make check-cpus   run the tests as on a processor with AVX2 and no AVX-512, then as on this one
# make check  formatting, lint, types, import floors

PYTHON ?= python3
DATASET ?= phantom
EPOCHS ?=
STUDY ?= smoke
SEEDS ?=
JOBS ?= 2
BIN := .venv/bin

SEED ?= $(shell date +%N)

.PHONY: demo study test test-quick test-slow test-random check-cpus coverage mutants fuzz check format clean

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qvit needs Python >= 3.11, found " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv

.venv/base: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

# All that the base has, too, at one go. What of it is run is compiled then: a minute less to wait for.
.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	@touch .venv/base $@

demo: .venv/base
	$(BIN)/qvit demo "$(DATASET)" $(if $(EPOCHS),--epochs $(EPOCHS))

study: .venv/base
	$(BIN)/qvit study run "$(STUDY)" --out "runs/study-$(STUDY)" $(if $(SEEDS),--seeds $(SEEDS))
	$(BIN)/qvit study report "runs/study-$(STUDY)"

# Tests of a file stay together, as they share what they set up. Their code is compiled once, not in each process.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test: .venv/dev
	$(PYTEST) -m "not slow" --every-error $(PYTEST_ARGS)

test-quick: .venv/dev
	$(PYTEST) -m "not slow and not long and not trains and not processes" --durations=10 $(PYTEST_ARGS)

test-slow: .venv/dev
	$(PYTEST) --dist worksteal -m slow $(PYTEST_ARGS)

test-random: .venv/dev
	$(PYTEST) --random-order --random-order-seed=$(SEED) $(PYTEST_ARGS)

coverage: .venv/dev
	$(PYTEST) --cov --cov-report=term $(PYTEST_ARGS)

mutants: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m mutants $(MUTANTS_ARGS)

# Numba takes this processor's features, whatever its name is said to be, unless they are said, too: here, none beyond
# the name's. Compiled kernels of both lie side by side.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 NUMBA_CPU_NAME=znver3 NUMBA_CPU_FEATURES=

check-cpus: .venv/dev
	$(if $(filter x86_64,$(shell uname -m)),$(AVX2) $(PYTEST) $(PYTEST_ARGS),@echo "No AVX2 here.")
	$(PYTEST) $(PYTEST_ARGS)

fuzz: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ_ARGS)

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
