"""Text-only rows that every machine has: the reference topics that ship inside CPython.

`pydoc_data.topics` holds 700 kB of English prose about the language, under the PSF licence.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord
from pipeline.settings import Settings


class PydocSettings(Settings):
    """`kind: pydoc`: about 1,500 pieces of prose from the Python reference."""

    kind: Literal["pydoc"]
    name: str = "pydoc"
    max_characters: int = Field(default=600, ge=100)
    """A piece ends at the paragraph that would pass this length, in characters."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first pieces; null takes all."""


class PydocSource:
    """Paragraphs of the reference, gathered into pieces of about `max_characters`."""

    def __init__(self, settings: PydocSettings) -> None:
        self._settings = settings

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:  # noqa: ARG002
        """Runs of pieces; the hash of their text stands for the content."""
        pieces = self._pieces()
        for start in range(0, len(pieces), rows_per_part):
            members = pieces[start : start + rows_per_part]
            slice_ = {"start": start, "count": len(members), "content": fingerprint(pieces=members)}
            size = sum(len(text) for _, text in members)
            yield Part.of(self._settings.name, slice_, num_records=len(members), size_bytes=size)

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The pieces of one run."""
        start, count = part.slice["start"], part.slice["count"]
        python = ".".join(platform.python_version_tuple()[:2])
        for key, text in self._pieces()[start : start + count]:
            yield SourceRecord(
                key=key,
                caption=text,
                image=None,
                licence="PSF-2.0",
                attribution="Python Software Foundation",
                origin=f"https://docs.python.org/{python}/",
            )

    def _pieces(self) -> list[tuple[str, str]]:
        """All pieces in order, as (key, text)."""
        from pydoc_data import topics

        pieces = []
        for topic in sorted(topics.topics):
            texts = _gather(topics.topics[topic], self._settings.max_characters)
            pieces += [(f"{topic}:{index:04d}", text) for index, text in enumerate(texts)]
        return pieces[: self._settings.limit]


def _gather(topic: str, max_characters: int) -> Iterator[str]:
    """Paragraphs of a topic, joined up to `max_characters`; single paragraphs may be longer."""
    piece = ""
    for block in re.split(r"\n\s*\n", topic):
        paragraph = " ".join(re.sub(r"([*=~-])\1{3,}", " ", block).split())
        if not re.search(r"[a-z]{3}", paragraph):
            continue  # rulers and grammar symbols are no prose
        if piece and len(piece) + len(paragraph) > max_characters:
            yield piece
            piece = ""
        piece = f"{piece}\n{paragraph}" if piece else paragraph
    if piece:
        yield piece
