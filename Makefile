# Each target works alone: what it needs is set up first.
PYTHON ?=
RUN = .venv/bin/python

.PHONY: setup demo reference test test-all check bench clean

setup:
	@PYTHON="$(PYTHON)" bash requirements/setup.sh

demo: setup
	@$(RUN) -m jobs.demo

# Two trainings of up to an hour each, with figures in docs/reference.
reference: setup
	@$(RUN) -m jobs.reference

check: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) -m codespell_lib

# A file's tests share what they have built, so each file stays with one process.
TEST = $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: check
	@$(TEST) -m "not e2e and not slow"
	@$(TEST) -m "e2e and not slow"

# The long torture as well: more kills, more orders, more instants.
test-all: test
	@$(TEST) -m slow

# The quick sizes, some minutes; `python -m tests.benchmarks.engine` has the full ones.
bench: setup
	@$(RUN) -m tests.benchmarks.engine --quick

clean:
	rm -rf .venv .venv-llm demo reference
