# make demo and make test set up everything they need (tools/setup.sh); nothing else has to be done first.

VENV ?= $(CURDIR)/.venv
PYTHON = $(VENV)/bin/python
PYTEST_ARGS ?=
export VENV
# An ordinary user's PATH on Debian has none of these, and tests call nft and ip by name.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: help setup demo test test-vm vagrant-up check golden pictures coverage mutations torture bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

setup: ## install what is missing: packages, virtual environment
	@tools/setup.sh

demo: setup ## build a lab, send packets from everywhere, draw it, take it down
	@$(PYTHON) -m netlab demo

test: setup ## all tests, the live ones in labs of their own
	@$(PYTHON) -m pytest -n 2 $(PYTEST_ARGS)

test-vm: setup ## tests that need ip_vs, netem or br_netfilter, in a VM where this kernel lacks it
	@$(PYTHON) -m pytest --vm $(PYTEST_ARGS)

vagrant-up: setup ## a real `vagrant up` with libvirt and a box built here, as root; half an hour
	@PYTHON=$(PYTHON) tools/vagrant/up.sh

check: setup ## style, types, floors
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	@if command -v vagrant >/dev/null; then vagrant validate --ignore-provider; \
	elif command -v ruby >/dev/null; then ruby -c Vagrantfile; \
	else echo "Vagrantfile: not checked, neither vagrant nor ruby is installed"; fi

golden: setup ## write the golden files and the rules in docs anew; read the difference before you commit it
	@NETLAB_GOLDEN=1 NETLAB_UPDATE_GOLDEN=1 $(PYTHON) -m pytest -q tests/test_plan.py tests/test_proxy_names.py
	@$(PYTHON) -m tests.mode_pages

pictures: setup ## take the pictures of docs/images anew, with chromium; look at them before you commit them
	@$(PYTHON) -m tests.pictures

torture: setup ## kill, starve and confuse labs, some hours long; the table of what was left (TORTURE=--small: minutes)
	@$(PYTHON) -m tests.torture $(TORTURE)

COVERAGE_DIR ?= $(CURDIR)/coverage-results
COVERAGE = PYTHONPATH=$(CURDIR) COVERAGE_FILE=$(COVERAGE_DIR)/.coverage $(VENV)/bin/coverage

# Left out: Ctrl-C in coverage's own Collector.lock_data leaves its lock taken, and the command waits for it for ever.
coverage: setup ## which lines of netlab/ the tests reach, in holders and agents too; slower than `make test`
	@mkdir -p $(COVERAGE_DIR) && chmod 1777 $(COVERAGE_DIR)
	@$(COVERAGE) run -m pytest -n 2 --deselect tests/live/test_left_behind.py::test_interrupted_while_starting $(PYTEST_ARGS); code=$$?; $(COVERAGE) combine -q; $(COVERAGE) report; exit $$code

mutations: setup ## break plans and planners on purpose; every one must be caught
	@$(PYTHON) -m tests.mutations

BENCH_RUNS ?= 3
BENCH_DIR ?= bench-results

bench: setup ## measure, beside peers: tables, JSON and pictures in bench-results/ (about half an hour)
	@mkdir -p $(BENCH_DIR)
	@for what in cli exec memory probe capture ingress matrix change services down up; do \
	  echo "== $$what"; \
	  $(PYTHON) -m netlab bench $$what --runs $(BENCH_RUNS) --save $(BENCH_DIR)/$$what.json --plot $(BENCH_DIR)/$$what.svg || exit; \
	done

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
