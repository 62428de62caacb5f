# Everything starts from `make demo` or `make test`; each makes what it needs.
PYTHON ?= python3
BIN := .venv/bin
SCENARIO ?= checkout-under-fire
JOBS ?= 4
FAULTS := every-fault$(if $(SUBSTRATE),-in-containers)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo faults test test-docker test-kubernetes chaos lint types setup bench bench-peers bugbench clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: setup  ## the shop under fire: up, seeded, replayed, hurt, judged, reported, removed (SUBSTRATE=docker: as containers)
	$(BIN)/envctl ci --full --scenario $(SCENARIO) $(if $(SUBSTRATE),--substrate $(SUBSTRATE))

faults: setup  ## every kind of fault against the shop, and a table of what was measured (five minutes; SUBSTRATE=docker: those that containers can have)
	status=0; $(BIN)/envctl ci --only gateway --scenario $(FAULTS) $(if $(SUBSTRATE),--substrate $(SUBSTRATE)) || status=$$?; \
	$(BIN)/envctl faults "$$(ls -td .envctl/runs/*-$(FAULTS) | head -1)"; exit $$status

test: setup  ## the tests, on real engines (twenty minutes; those that need a Docker engine or a cluster are below)
	$(BIN)/pytest -n $(JOBS) --dist loadfile --ignore tests/demo -m "not docker and not kubernetes"
	$(BIN)/pytest tests/demo -m "not docker and not kubernetes"  # alone: their verdicts hold the shop's speed against limits

test-docker: setup  ## the tests on a real Docker engine, which they start, and install as root where there is none
	$(BIN)/pytest -m "docker and not kubernetes"  # apart: the engine has interfaces and cgroups, which others would take for left over

test-kubernetes: setup  ## the tests on a real Kubernetes, which they build from source the first time (a quarter of an hour)
	cd tests && ../$(BIN)/python -m cluster.build
	$(BIN)/pytest -m kubernetes

chaos: setup  ## kill everything at every boundary of a session and at 50 random instants (half an hour)
	ENVCTL_CHAOS_EVERY=1 ENVCTL_CHAOS_INSTANTS=50 $(BIN)/pytest tests/chaos

lint: .venv/installed  ## style, layers
	$(BIN)/ruff check
	$(BIN)/lint-imports

types: .venv/installed  ## types
	$(BIN)/mypy

setup: .venv/installed  ## the virtual environment and the tools envctl needs, into the user's cache
	$(BIN)/envctl setup

bench: setup  ## figures for bench/RESULTS.md
	$(BIN)/python -m bench

bench-peers: setup  ## the same processes under Docker Compose, under envctl on Docker, and embedded (ten minutes, alone)
	$(BIN)/python -m bench peers

bugbench: setup  ## plants every defect with 5 seeds, and runs the correct shop 50 times; goes on where it was (hours, alone)
	$(BIN)/python -m bench.bugs $(BUGS)

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("envctl needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python has no venv module: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --no-index -e .
	$(BIN)/python -m compileall -q envctl  # pip does so for what it copies: no run writes here afterwards
	@touch $@

clean:  ## remove this checkout's environment, its files and the virtual environment
	-@test ! -x $(BIN)/envctl || $(BIN)/envctl down || test $$? = 6  # 6: there is none
	rm -rf .venv .envctl
