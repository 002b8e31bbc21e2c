"""Measurements, side by side with what people use; `python -m tests.benchmarks.NAME [--json]`."""
