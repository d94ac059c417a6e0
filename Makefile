# Every target sets itself up: .venv is made once and again only when pyproject.toml or constraints.txt changes.
#   make PYTHON=/path/to/python3.11          another interpreter
#   make TORCH_INDEX=https://download.pytorch.org/whl/cpu    smaller torch without CUDA, where the default index has none

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
KEEP ?=
ARGS ?=

BIN := .venv/bin
READY := .venv/ready-$(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help setup demo test test-long soak check fmt proto bench chaos netlab docs demo-model constraints clean

help:
	@echo "make demo          a prefill/decode cluster on this machine answers a few prompts (KEEP=1: and goes on serving)"
	@echo "make test          every test that runs without a GPU (ARGS='-k name' to choose)"
	@echo "make test-long     a few more that take minutes"
	@echo "make soak          a million schedules of faults (ARGS='--seeds 5000000 --from 10000', or '--tell 4711' for one story)"
	@echo "make check         formatting, lint, types, import rules, generated files"
	@echo "make fmt           format and fix what can be fixed"
	@echo "make proto         regenerate src/tercet/pb from proto/"
	@echo "make bench         the first-light benchmark"
	@echo "make chaos         15 minutes of kills, hangs, drains and moves on a real cluster (ARGS='--minutes 3')"
	@echo "make netlab        a cluster on three hosts made of namespaces loses one of them (needs root)"
	@echo "make docs          regenerate docs/configuration.md and check every link"
	@echo "make demo-model    train deploy/demo-model anew (about 20 minutes on two cores)"
	@echo "make constraints   take newer versions of what Tercet stands on, and write down which"
	@echo "make clean         remove caches and .venv"

setup: $(READY)

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tercet needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "set-up 1/3: .venv with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "set-up 2/3: $(TORCH)"
	@$(BIN)/python -m pip install --quiet '$(TORCH)' $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@echo "set-up 3/3: Ray, transformers, NIXL and the rest (a minute or two)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@rm -f .venv/ready-*
	@touch $@

demo: $(READY)
	@$(BIN)/tercet demo $(if $(KEEP),--keep)

# What starts Ray runs one test at a time, everything else one process a core; status 5 is "nothing of that name here".
CHOSEN := -m "not gpu and not netlab and not long" $(ARGS)
test: $(READY)
	$(BIN)/pytest -n auto --dist worksteal --ignore=tests/cluster $(CHOSEN) || [ $$? -eq 5 ]
	$(BIN)/pytest tests/cluster $(CHOSEN) || [ $$? -eq 5 ]

test-long: $(READY)
	$(BIN)/pytest -m long $(ARGS)

soak: $(READY)
	PYTHONPATH=tests/sim $(BIN)/python -m faults $(if $(ARGS),$(ARGS),--seeds 1000000 --from 10000)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) proto docs
	git diff --exit-code -- proto src/tercet/pb docs/configuration.md

fmt: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The virtual path makes flat files in proto/ generate `from tercet.pb import …` without patching.
proto: $(READY)
	$(BIN)/python -m grpc_tools.protoc -Itercet/pb=proto \
		--python_out=src --pyi_out=src --grpc_python_out=src proto/*.proto

bench: $(READY)
	$(BIN)/python bench/first_light.py $(ARGS)

chaos: $(READY)
	$(BIN)/python bench/chaos/run.py $(ARGS)

netlab: $(READY)
	$(BIN)/pytest -s -m netlab tests/cluster/netlab $(ARGS)

docs: $(READY)
	$(BIN)/python docs/configuration.py docs/configuration.md
	$(BIN)/python docs/links.py

demo-model: $(READY)
	$(BIN)/python deploy/train_demo_model.py $(ARGS)

# Newer versions of everything within the bounds of pyproject.toml; run the tests before committing what it writes.
constraints: $(READY)
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[dev]' '$(TORCH)'
	$(BIN)/python -m pip freeze --exclude-editable --exclude torch --exclude triton > constraints.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache build dist src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
