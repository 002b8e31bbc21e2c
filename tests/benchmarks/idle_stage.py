"""Stages that do nothing, so that what is measured is the engine around them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.engine import schemas
from pipeline.engine.stage import Output, StageSpec, Work
from pipeline.settings import Settings


class IdleSettings(Settings):
    """Nothing to set."""


class EmptyWorker:
    """Gives no rows, whatever the part claims to hold."""

    def __init__(self, settings: IdleSettings, models: Mapping[str, Path]) -> None:
        pass

    def __call__(self, work: Work) -> Output:  # noqa: ARG002
        return Output(rows=[])


class CopyingWorker:
    """Gives the rows that it reads."""

    def __init__(self, settings: IdleSettings, models: Mapping[str, Path]) -> None:
        pass

    def __call__(self, work: Work) -> Output:
        return Output(rows=work.read("records"))


def empty_stage() -> StageSpec:
    """A stage like ingest that writes no rows."""
    return StageSpec(
        name="ingest", version=1, reads=(), writes="records", schema=schemas.RECORDS,
        settings=IdleSettings(), worker=f"{__name__}:EmptyWorker",
    )  # fmt: skip


def copying_stage() -> StageSpec:
    """A stage that reads the records and writes them again."""
    return StageSpec(
        name="copy", version=1, reads=("records",), writes="copies", schema=schemas.RECORDS,
        settings=IdleSettings(), worker=f"{__name__}:CopyingWorker",
    )  # fmt: skip
