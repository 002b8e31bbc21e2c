"""Sidecars: a file next to a picture with its caption, as text or JSON, or with notes on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.fingerprint import hash_bytes
from pipeline.sources.captions import Captions, captions_of, named_captions
from pipeline.sources.files import Problem, as_text, plain, read_file
from pipeline.sources.known_names import provenance_columns
from pipeline.text_files import decode_text

_MAX_BYTES = 1 << 24
"""Ours: a caption file of more than 16 MiB is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A file next to a picture: its ending in lower case, and its bytes or why there are none."""

    suffix: str
    content: bytes | Problem

    @property
    def fingerprint(self) -> tuple[str, str]:
        """What decides the captions."""
        if isinstance(self.content, Problem):
            return self.suffix, self.content.reason
        return self.suffix, hash_bytes(self.content)

    @property
    def notes(self) -> Mapping[str, Any] | Problem:
        """The fields of a JSON file; a list or a text in it is the captions. None of a text."""
        if isinstance(self.content, Problem):
            reason = self.content.reason.replace("-image-", "-caption-")
            return Problem(reason=reason, detail=self.content.detail)
        if self.suffix != ".json":
            return {}
        try:
            value = json.loads(decode_text(self.content).text)
        except (ValueError, RecursionError) as error:
            return Problem(reason="ingest-caption-malformed", detail=f"no JSON: {error}")
        return value if isinstance(value, dict) else {"caption": value}


def read_sidecars(image: Path, endings: Sequence[str]) -> list[Sidecar]:
    """The files next to a picture with these endings: the caption file, then a JSON with notes."""
    return [
        Sidecar(
            suffix=f".{ending.lower().rpartition('.')[2]}",
            content=read_file(image.with_name(image.stem + ending), _MAX_BYTES),
        )
        for ending in endings
    ]


def sidecar_captions(sidecar: Sidecar, columns: Sequence[str] | None) -> Captions | Problem:
    """The captions that a file next to a picture holds."""
    notes = sidecar.notes
    if isinstance(notes, Problem):
        return notes
    if sidecar.suffix != ".json":
        assert isinstance(sidecar.content, bytes)  # noqa: S101 - else it has a problem
        return Captions(caption=as_text(sidecar.content), more={})
    return named_captions(notes) if columns is None else captions_of(notes, columns)


def fingerprints(sidecars: Sequence[Sidecar]) -> list[str]:
    """What decides a record: of further notes, only where they say whom it belongs to."""
    if not sidecars:
        return ["", "ingest-no-caption"]
    first, *others = sidecars
    notes = [each for each in others if provenance_columns(_fields(each))]
    return [word for each in (first, *notes) for word in each.fingerprint]


def sidecar_notes(sidecars: Sequence[Sidecar]) -> Mapping[str, Any]:
    """The fields of the JSON next to a picture, whether it is its caption file or not."""
    return next((_fields(each) for each in sidecars if each.suffix == ".json"), {})


def _fields(sidecar: Sidecar) -> Mapping[str, Any]:
    notes = sidecar.notes
    return {} if isinstance(notes, Problem) else notes


def no_caption(image: Path, endings: Sequence[str], metadata: Sequence[str]) -> Problem:
    """Says where the caption of a picture was looked for."""
    *names, last = (f"{plain(image.stem)}{ending}" for ending in endings)
    files = f"{', '.join(names)} or {last}" if names else last
    rows = f", and no row for it in {' or '.join(metadata)}" if metadata else ""
    return Problem(reason="ingest-no-caption", detail=f"there is no {files} next to it{rows}")
