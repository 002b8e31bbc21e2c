# Each target works alone: what it needs is set up first.
PYTHON ?=
RUN = .venv/bin/python

.PHONY: setup demo test check bench clean

setup:
	@PYTHON="$(PYTHON)" bash requirements/setup.sh

demo: setup
	@$(RUN) -m jobs.demo

check: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) -m codespell_lib

test: check
	@$(RUN) -m pytest -n 2 -m "not e2e"
	@$(RUN) -m pytest -m e2e

# The quick sizes, some minutes; `python -m tests.benchmarks.engine` has the full ones.
bench: setup
	@$(RUN) -m tests.benchmarks.engine --quick

clean:
	rm -rf .venv .venv-llm demo
