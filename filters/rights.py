"""The refuse stage: what may not be used, whatever its scores; `select` leaves it out.

Decided on stored columns alone, so that another licence, list or entry scores nothing again. An
entry of a list is told in the reject, so that a person can see which line to take back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from filters.blocklists import Lists, read_lists
from filters.settings import RightsSettings
from pipeline.engine.schemas import original_texts
from pipeline.engine.stage import Output, Row, Work

_RECORD_COLUMNS = (
    "record_id", "image_id", "caption", "more_captions", "licence", "opt_outs", "origin",
)  # fmt: skip

_MAX_HOST_CHARACTERS = 253  # RFC 1035, section 2.3.4


class Refusal(NamedTuple):
    """Why a record or a text may not be used."""

    reason: str
    """The reject's code."""
    detail: str
    """What was found, and which entry of a list says so."""


class RightsWorker:
    """Refuses records by licence, opt-out signal, domain and image, and texts by their words.

    Reads: `records` without pixels, `variants`, `pictures` without features.
    Writes: `refusals`, one row a record or text that may not be used.
    Rejects: nothing; `select` rejects what stands there, as `licence-not-allowed`, `opted-out`,
        `blocked-domain`, `blocked-image` and `blocked-text`.
    Source: Re-LAION-5B's removal by lists of hashes (LAION, 2024), and Longpre et al., Data
        Provenance, arXiv 2310.16787, for licences; the lists are the recipe's own.
    """

    def __init__(self, settings: RightsSettings, models: Mapping[str, Path]) -> None:  # noqa: ARG002
        self._settings = settings
        self._lists = read_lists(settings)

    def __call__(self, work: Work) -> Output:
        """Judge one part."""
        if self._settings == RightsSettings():
            return Output(rows=[])
        hashes = {
            row["record_id"]: row["pixel_hash"]
            for row in work.read("pictures", ["record_id", "pixel_hash"]).to_pylist()
        }
        rows: list[Row] = []
        for record in work.read("records", _RECORD_COLUMNS).to_pylist():
            record_id = record["record_id"]
            refusal = refuse_record(
                {**record, "pixel_hash": hashes.get(record_id)}, self._settings, self._lists
            )
            if refusal is not None:
                rows.append(_row(record_id, None, refusal))
            for variant_id, text in original_texts(record):
                rows += self._refuse_text(record_id, variant_id, text)
        for variant in work.read("variants", ["record_id", "variant_id", "text"]).to_pylist():
            rows += self._refuse_text(**variant)
        return Output(rows=rows)

    def _refuse_text(self, record_id: str, variant_id: str, text: str) -> list[Row]:
        entry = self._lists.texts.entry(text)
        if entry is None:
            return []
        return [_row(record_id, variant_id, Refusal("blocked-text", f"it has {entry!r}"))]


def refuse_record(
    record: Mapping[str, Any], settings: RightsSettings, lists: Lists
) -> Refusal | None:
    """The first reason why a record may not be used, or None.

    Args:
        record: a row of `records`, with `pixel_hash` of `pictures`.
        settings: the recipe's section.
        lists: what its files say.
    """
    licence, allowed = record["licence"], settings.licences
    if allowed is not None and licence.casefold() not in {name.casefold() for name in allowed}:
        return Refusal("licence-not-allowed", f"its licence is {licence!r}")
    if settings.opt_outs == "reject" and record["opt_outs"]:
        return Refusal("opted-out", ", ".join(record["opt_outs"]))
    domain = lists.domain(host_of(record["origin"]))
    if domain is not None:
        return Refusal("blocked-domain", f"it is from {domain}")
    for name in ("image_id", "pixel_hash"):
        if record[name] in lists.images:
            return Refusal("blocked-image", f"its {name} is {record[name]}")
    return None


def host_of(origin: str) -> str:
    """The host that a URL names, in lower case; empty for a path, or what can be no host."""
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return ""
    return host if len(host) <= _MAX_HOST_CHARACTERS else ""


def _row(record_id: str, variant_id: str | None, refusal: Refusal) -> Row:
    return {"record_id": record_id, "variant_id": variant_id, **refusal._asdict()}
