"""What a corpus's recipe does not refer to any more: files of earlier recipes and earlier sources.

Only a corpus that is filled to its end knows which files are live; before that, a file that seems
to be left over may be what the next step needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.corpus import Corpus
from pipeline.engine.storage import read_json, remove
from pipeline.errors import UserError
from pipeline.ledger.live import missing
from pipeline.synthesis import answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A file or folder that nothing refers to.

    Attributes:
        path: where it lies.
        why: what it is, for the person who is asked.
        num_files: how many files it holds.
        size_bytes: how large they are together.
    """

    path: Path
    why: str
    num_files: int
    size_bytes: int


def find_garbage(corpus: Corpus) -> list[Garbage]:
    """What can be removed from a corpus, in the order of the paths.

    Raises:
        UserError: when the corpus is not filled to its end.
    """
    gaps = missing(corpus)
    if gaps:
        raise UserError(
            f"{corpus.root} is not filled to its end, so it is not known what it needs:"
            f" {gaps[0]} is missing",
            "Run `anymix run RECIPE` to the end first.",
        )
    others = [folder for folder in _folders(corpus.root / "shards") if folder != corpus.shards]
    shards = [_garbage(folder, "shards of another recipe") for folder in others]
    return sorted(
        [*_tables(corpus), *_answers(corpus), *_models(corpus), *shards],
        key=lambda garbage: str(garbage.path),
    )


def remove_garbage(found: list[Garbage]) -> None:
    """Remove what `find_garbage` found; the caller holds the corpus's lock."""
    for garbage in found:
        remove(garbage.path)


def _tables(corpus: Corpus) -> Iterator[Garbage]:
    live = {
        path
        for paths in (*corpus.tables.values(), *corpus.rejects.values())
        for path in paths.values()
    }
    in_use = {path.parent for path in live}
    for table in _folders(corpus.root / "tables"):
        yield from _indexes(corpus, table)
        for folder in _folders(table):
            if folder not in in_use:
                yield _garbage(folder, f"{table.name} of another recipe or source")
                continue
            for path in sorted(folder.iterdir()):
                if path not in live:
                    yield _garbage(path, f"{table.name} of a part that has changed or gone")


def _indexes(corpus: Corpus, table: Path) -> Iterator[Garbage]:
    """Indexes of a step over the whole corpus: the live one says what the live files are."""
    live = {part: path.parent.name for part, path in corpus.tables.get(table.name, {}).items()}
    for path in sorted(table.glob("index-*.json")):
        try:
            is_live = read_json(path) == live
        except ValueError:  # damaged: of no use to anyone
            is_live = False
        if not is_live:
            yield _garbage(path, f"index of earlier {table.name}")


def _answers(corpus: Corpus) -> Iterator[Garbage]:
    """Answers that were kept for parts which have since changed, or are asked otherwise."""
    live = set(corpus.tables["answers"].values()) if "answers" in corpus.tables else set()
    for folder in _folders(corpus.root / answers.FOLDER):
        if folder.name not in {path.parent.name for path in live}:
            yield _garbage(folder, "answers to another recipe")
            continue
        for part in _folders(folder):
            if (
                corpus.root / "tables" / "answers" / folder.name / f"{part.name}.parquet"
                not in live
            ):
                yield _garbage(part, "answers for a part that has changed or gone")


def _models(corpus: Corpus) -> Iterator[Garbage]:
    live: Set[Path] = set(corpus.models.values())
    for model in _folders(corpus.root / "models"):
        for folder in _folders(model):
            if folder not in live:
                yield _garbage(folder, f"an earlier {model.name}")


def _garbage(path: Path, why: str) -> Garbage:
    files = [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
    return Garbage(
        path=path,
        why=why,
        num_files=len(files),
        size_bytes=sum(file.stat().st_size for file in files),
    )


def _folders(parent: Path) -> list[Path]:
    if not parent.exists():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir())
