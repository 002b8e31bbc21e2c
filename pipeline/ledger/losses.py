"""What of a corpus was lost as a whole: a source, a kind of text, all that the rules looked at.

Single rejects are counted by `status`. Where they take most of something, a person wants to be
told, with the commonest reason and an example: it is a wrong column far more often than bad data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.corpus import Corpus
from pipeline.engine.tables import connect

_LOST_SHARE = 0.5
"""Ours: web data loses a third to broken addresses; more than half is seldom meant."""
_MAX_EXAMPLE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Rejects that belong together.

    Attributes:
        num: how many.
        reason: the commonest reason.
        num_of_reason: how many have it.
        example: one of these in words.
    """

    num: int
    reason: str
    num_of_reason: int
    example: str

    def __str__(self) -> str:
        share = "all" if self.num_of_reason == self.num else f"{self.num_of_reason:,} of them"
        return f"{share} for {self.reason}, e.g. {self.example}"


def losses(corpus: Corpus) -> list[str]:
    """One sentence for each source and each kind of text that has lost most of what it had."""
    return [*_of_sources(corpus), *_of_kinds(corpus)]


def nothing_left(corpus: Corpus) -> str | None:
    """Why no record of a filled corpus is in a shard; None where one is."""
    if "samples" not in corpus.tables or _count(corpus.files("samples")):
        return None
    found = _commonest(corpus.reject_files(), "variant_id IS NULL")
    why = f"{found.num:,} were left out, {found}" if found else "the sources hold none"
    return f"no record is in a shard: {why}"


def _of_sources(corpus: Corpus) -> Iterator[str]:
    if "records" not in corpus.tables:
        return
    for source in corpus.recipe["sources"]:
        name = source["name"]
        parts = {part.name for part in corpus.parts if part.source == name}
        num = sum(part.num_records for part in corpus.parts if part.source == name)
        if not num:
            place = f": there is nothing to read in {source['path']}" if "path" in source else ""
            yield f"source {name!r} has no record{place}"
            continue
        where = "variant_id IS NULL AND reason <> 'ingest-forgotten'"
        found = _commonest(_rejects(corpus, "ingest", parts), where)
        if found and found.num > _LOST_SHARE * num:
            yield f"source {name!r}: {found.num:,} of {num:,} rows were rejected, {found}"


def _of_kinds(corpus: Corpus) -> Iterator[str]:
    if "variants" not in corpus.tables:
        return
    answered = connect({name: corpus.files(name) for name in ("answers", "variants")}).sql(
        "SELECT kind, count(*) FROM answers WHERE role = 'write' AND kind NOT IN"
        " (SELECT kind FROM variants) GROUP BY kind ORDER BY kind"
    )
    for kind, num in answered.fetchall():
        parts = {part.name for part in corpus.parts}
        found = _commonest(_rejects(corpus, "synthesize", parts), f"kind = '{kind}'")
        why = f": {found.num:,} texts were refused, {found}" if found else ""
        yield f"no text of the kind `{kind}` was taken from {num:,} answers{why}"


def _rejects(corpus: Corpus, stage: str, parts: Set[str]) -> list[Path]:
    """The committed files of a stage's rejects for some parts."""
    files = corpus.rejects[stage]
    return [files[part] for part in sorted(files.committed() & parts)]


def _commonest(files: Collection[Path], where: str) -> Loss | None:
    """The rejects of some files, with their commonest reason; None where there are none."""
    rows = (
        connect({"rejects": list(files)})
        .sql(
            "SELECT reason, count(*) AS num, min(coalesce(detail, 'record ' || record_id ||"
            " coalesce(printf(' has %g for %g', score, threshold), ''))) FROM rejects"
            f" WHERE {where} GROUP BY reason ORDER BY num DESC, reason"
        )
        .fetchall()
    )
    if not rows:
        return None
    reason, num_of_reason, example = rows[0]
    example = " ".join(example.split())
    if len(example) > _MAX_EXAMPLE:
        example = f"{example[:_MAX_EXAMPLE]}…"
    num = sum(row[1] for row in rows)
    return Loss(num=num, reason=reason, num_of_reason=num_of_reason, example=example)


def _count(files: Collection[Path]) -> int:
    ((num,),) = connect({"samples": list(files)}).sql("SELECT count(*) FROM samples").fetchall()
    return int(num)
