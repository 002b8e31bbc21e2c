"""A stage that writes records and takes its time, to see what waits for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import Output, StageSpec, Work
from pipeline.settings import Settings


class SlowSettings(Settings):
    seconds: float


class SlowIngest:
    """16 records with pictures a part: what an engine takes at a time."""

    def __init__(self, settings: SlowSettings, _models: Mapping[str, Path]) -> None:
        self._seconds = settings.seconds

    def __call__(self, work: Work) -> Output:
        time.sleep(self._seconds)
        return Output(rows=[record(f"{work.part}-{row}", "red apple") for row in range(16)])


def record(name: str, caption: str, *, with_image: bool = True) -> dict[str, object]:
    """A row of `records`."""
    return {
        "record_id": name,
        "source": "test",
        "key": name,
        "image_id": name if with_image else None,
        "image": b"png" if with_image else None,
        "width": 8 if with_image else None,
        "height": 8 if with_image else None,
        "caption": caption,
        "licence": "CC0-1.0",
        "attribution": "nobody",
        "split": "train",
        "origin": "test",
        "more_captions": [],
        "repairs": [],
        "opt_outs": [],
    }


def slow_ingest(seconds: float) -> StageSpec:
    """The stage, which takes that long for each part."""
    return StageSpec(
        name="ingest",
        version=1,
        reads=(),
        writes="records",
        schema=RECORDS,
        settings=SlowSettings(seconds=seconds),
        worker="tests.pipeline.synthesis.slow_ingest:SlowIngest",
    )
