"""A stage that writes records, the first part at once and the others when a gate opens.

So the engine behind it is up and warm before the clock starts, and has nothing to do until then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import Output, StageSpec, Work
from pipeline.settings import Settings

_POLL_S = 0.05


class GatedSettings(Settings):
    """Nothing of it decides the records: they come with the part."""

    gate: Path
    """A file; while it is missing, only the part that is called `first` is done."""
    first: str


class GatedIngest:
    """Gives the captions that the part brings along, as records with a picture."""

    def __init__(self, settings: GatedSettings, _models: Mapping[str, Path]) -> None:
        self._settings = settings

    def __call__(self, work: Work) -> Output:
        while work.part != self._settings.first and not self._settings.gate.exists():
            time.sleep(_POLL_S)
        return Output(rows=[_record(work.part, caption) for caption in work.extra["captions"]])


def gated_ingest(gate: Path, first: str) -> StageSpec:
    """The stage with this gate and this first part."""
    return StageSpec(
        name="ingest", version=1, reads=(), writes="records", schema=RECORDS,
        settings=GatedSettings(gate=gate, first=first), worker=f"{__name__}:GatedIngest",
    )  # fmt: skip


def _record(part: str, caption: str) -> dict[str, object]:
    name = f"{part}-{caption}"
    return {
        "record_id": name, "source": "benchmark", "key": name,
        "image_id": name, "image": b"png", "width": 8, "height": 8,
        "caption": caption, "more_captions": [], "repairs": [], "opt_outs": [],
        "licence": "CC0-1.0", "attribution": "nobody", "split": "train", "origin": "benchmark",
    }  # fmt: skip
