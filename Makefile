# Needs make (GNU 3.81 or newer) and Python 3.11 or newer; all else lands in .venv.
# Every path is relative: a checkout below a folder with a space in its name works.

SHELL = /bin/sh
BIN = .venv/bin
LOCKS = .requirements
# Empty: the first of python3, python3.14, ... that fits.
PYTHON =
# Where an untried branch may lose a row, a token or the pace.
WHOLLY_COVERED = etl/auth/*,etl/lake/*,etl/ledger/*,etl/pacing/*,etl/paging/*
# Passed on: make test ARGS='-k paging', make bench ARGS=--help
ARGS =
# How many seeds `make sim` tries, or the one whose trace it tells.
SEEDS = 2000
SEED =
# Test processes, two a CPU since half of the tests wait; 0 runs in one, for a debugger.
JOBS = $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))
# make lock UPGRADE=--upgrade takes the newest versions; else only what pyproject.toml forces.
UPGRADE =

# Errors are shown, warnings about other people's pip settings are not.
PIP = $(BIN)/python -m pip --disable-pip-version-check -qq
# Every version and hash is locked and nothing is resolved; what comes as source is built by
# the locked tools, which themselves come as wheels.
INSTALL = $(PIP) install --no-deps --no-build-isolation --require-hashes
# One lock for every system and Python; which index the files come from is not its business.
COMPILE = $(BIN)/uv pip compile $(UPGRADE) --universal --python-version 3.11 --quiet \
    --generate-hashes --custom-compile-command 'make lock'

# Compiled modules are kept, whatever the image says: the tests alone start some 300 processes.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help run test coverage test-lowest check format bench sim soak mutate audit package lock clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

run: .venv/.etl ## Export from the built-in sandbox into sandbox/lake/
	@$(BIN)/etl run --sandbox $(ARGS)

test: .venv/.dev ## Run all the tests
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

# What promises nothing lost is covered to the last branch; the sandbox is no part of it.
coverage: .venv/.dev ## Run all the tests, and fail where they leave too much untried
	@$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report= $(ARGS)
	@failed=0; \
	$(BIN)/coverage report --omit='etl/sandbox/*' --fail-under=95 || failed=1; \
	$(BIN)/coverage report --include='$(WHOLLY_COVERED)' --fail-under=100 || failed=1; \
	exit $$failed

test-lowest: .venv-lowest/.etl ## Run the tests with the lowest versions that pyproject.toml allows
	@.venv-lowest/bin/python -m pytest -n $(JOBS) $(ARGS)

check: .venv/.dev ## Check format, lint, types and the order of imports
	@failed=0; \
	$(BIN)/ruff format --check etl tests || failed=1; \
	$(BIN)/ruff check etl tests || failed=1; \
	$(BIN)/mypy || failed=1; \
	$(BIN)/lint-imports --no-logo || failed=1; \
	exit $$failed

format: .venv/.dev ## Format the code, and mend what lint can mend
	@$(BIN)/ruff format etl tests
	@$(BIN)/ruff check --fix etl tests
	@$(BIN)/ruff format --quiet etl tests

bench: .venv/.dev ## Measure speed and memory
	@$(BIN)/python -m tests.bench $(ARGS)

sim: .venv/.dev ## Simulate exports under kills and faults: SEEDS=2000, or SEED=17 for its trace
	@$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

soak: .venv/.dev ## Try to break it: ARGS='--seconds 3600', ARGS=--help
	@$(BIN)/python -m tests.soak $(ARGS)

mutate: .venv-mutate/.etl ## Change the pure decisions at random, and list what no test notices
	@.venv-mutate/bin/python -m tests.mutation $(ARGS)

audit: .venv/.dev .venv-audit/.locked ## Look for known vulnerabilities and licences; write dist/sbom.cdx.json
	@$(BIN)/python -m tests.audit .venv-audit/bin/pip-audit $(ARGS)

package: .venv/.etl ## Build what is published into dist/: a wheel and the source
	@$(BIN)/hatchling build

lock: .venv/.etl ## Lock the versions that pyproject.toml asks for
	@$(INSTALL) -r $(LOCKS)/lock.txt
	@$(COMPILE) --group lock --output-file $(LOCKS)/lock.txt
	@$(COMPILE) --group build --output-file $(LOCKS)/build.txt
	@$(COMPILE) pyproject.toml --all-extras --constraint $(LOCKS)/build.txt \
	    --output-file $(LOCKS)/run.txt
	@$(COMPILE) pyproject.toml --all-extras --group dev --constraint $(LOCKS)/build.txt \
	    --constraint $(LOCKS)/run.txt --output-file $(LOCKS)/dev.txt
	@$(COMPILE) pyproject.toml --all-extras --group dev --constraint $(LOCKS)/build.txt \
	    --resolution lowest-direct --upgrade --output-file $(LOCKS)/lowest.txt
	@$(COMPILE) pyproject.toml --all-extras --group mutate --constraint $(LOCKS)/dev.txt \
	    --output-file $(LOCKS)/mutate.txt
	@$(COMPILE) --group audit --constraint $(LOCKS)/build.txt --output-file $(LOCKS)/audit.txt

clean: ## Remove .venv, caches and the sandbox's lake
	@rm -rf .venv .venv-* .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@rm -rf build dist htmlcov mutants sandbox
	@find etl tests -type d -name __pycache__ -prune -exec rm -rf {} +

# A changed lock starts .venv anew, so that it holds what is locked and nothing else.
.venv/.locked: $(LOCKS)/build.txt $(LOCKS)/run.txt
	@found=; \
	for python in $(if $(PYTHON),'$(PYTHON)',python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo 'Found no Python of version 3.11 or newer (on Debian and Ubuntu with its python3-venv).' >&2; \
	    echo 'Install one, or name it: make PYTHON=/path/to/python3.12' >&2; \
	    exit 1; \
	fi; \
	echo "Setting up .venv with $$("$$found" --version): half a minute, once."; \
	"$$found" -m venv --clear .venv
	@$(INSTALL) --only-binary :all: -r $(LOCKS)/build.txt
	@$(INSTALL) -r $(LOCKS)/run.txt
	@touch $@

.venv/.etl: .venv/.locked pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# After .etl, never beside it: one pip at a time in one environment.
.venv/.dev: .venv/.locked $(LOCKS)/dev.txt | .venv/.etl
	@echo 'Adding what tests and checks need.'
	@$(INSTALL) -r $(LOCKS)/dev.txt
	@touch $@

# Beside .venv, which holds what is locked and nothing else.
.venv-lowest/.locked: $(LOCKS)/build.txt $(LOCKS)/lowest.txt | .venv/.etl
.venv-mutate/.locked: $(LOCKS)/build.txt $(LOCKS)/mutate.txt | .venv/.etl
.venv-audit/.locked: $(LOCKS)/build.txt $(LOCKS)/audit.txt | .venv/.etl
.venv-%/.locked:
	@echo 'Setting up .venv-$* once.'
	@$(BIN)/python -m venv --clear .venv-$*
	@$(subst $(BIN),.venv-$*/bin,$(INSTALL)) --only-binary :all: -r $(LOCKS)/build.txt
	@$(subst $(BIN),.venv-$*/bin,$(INSTALL)) -r $(LOCKS)/$*.txt
	@touch $@

.venv-%/.etl: .venv-%/.locked pyproject.toml
	@$(subst $(BIN),.venv-$*/bin,$(PIP)) install --no-deps --no-build-isolation --editable .
	@touch $@
