# Everything a user or a developer runs.  `make run` and `make test` need Python 3.11 or later and
# nothing else: they make .venv and install the pinned requirements there.

# The newest suitable Python on the PATH; override with `make run PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	if command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := $(shell sed -n 's/^uv==//p' requirements.txt)
STAMP := $(VENV)/.requirements-installed
PYTEST := $(BIN)/python -m pytest
# Few threads a process that sleep while idle: the tests run in several processes.
export OMP_NUM_THREADS ?= 2
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: run test lint format lock bench bench-brackets pretrained clean

run: $(STAMP)
	$(BIN)/python -m streamlit run dashboard/app.py --server.showEmailPrompt=false $(RUN_ARGS)

test: $(STAMP)
	$(PYTEST) -n auto --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Recompile the pins from pyproject.toml (no download addresses are recorded).
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --universal --extra dev --upgrade --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links -q -o requirements.txt

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks.bench_brackets --count 32 --levels crown fast tight
	$(BIN)/python -m tests.benchmarks.bench_attacks
	$(BIN)/python -m tests.benchmarks.bench_radius
	$(BIN)/python -m tests.benchmarks.bench_attacks --dataset digits --count 20 --epsilons 0.05 \
		--methods pgd search --libraries --exact 2 --exact-count 10
	$(BIN)/python -m tests.benchmarks.bench_throughput
	$(BIN)/python -m tests.benchmarks.bench_pages

# Peak memory, then every level on every pair, exact with 10 and 60 s an example: many hours.
# BRACKETS.jsonl keeps what was measured; BENCH_ARGS="--students kd" measures a part.
bench-brackets: $(STAMP)
	$(BIN)/python -m tests.benchmarks.bench_brackets --memory --levels fast tight exact --out BRACKETS.jsonl
	$(BIN)/python -m tests.benchmarks.bench_brackets --out BRACKETS.jsonl $(BENCH_ARGS)

# Train what is missing of the shipped models and make their tables (resumable).
pretrained: $(STAMP)
	$(BIN)/python pretrained/build.py

$(STAMP): requirements.txt
	@test -n "$(PYTHON)" || { echo "fkd needs Python 3.11 or later; install it or say PYTHON=/path/to/python." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "Python's venv module is missing; install it (Debian: apt-get install python3-venv)." >&2; exit 2; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync -q --compile-bytecode --python $(BIN)/python requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
