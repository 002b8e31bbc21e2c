"""The columns that a recipe names, looked for before any work: a typing error ends the run there.

Without this every row would become a reject, hours later. A single file without the column is no
error, since the others may be right: its rows are rejects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from pipeline.errors import UserError
from pipeline.sources.files import plain
from pipeline.sources.known_names import caption_columns

NUM_FIRST_ROWS = 1000
"""Ours: files without a header are read so far before a column counts as missing from them. JSON
lines leave out what is null, so the first row does not tell."""

_NUM_SHOWN = 30


CAPTIONS = ()
"""Stands among the needed columns for any that is a caption by its name."""


def check_columns(
    source: str, needed: Sequence[Sequence[str]], found: Iterable[Iterable[str]], *, where: str
) -> None:
    """See that what a recipe names is there.

    Args:
        source: the source's name in the recipe.
        needed: the columns that it names; of several in one entry, one is enough, and `CAPTIONS`
            is any that is a caption by its name.
        found: the columns of one file (or row) after the other, read on until all are found. Where
            none can be read, nothing is said: the rejects say why.
        where: what was looked at, for the message.

    Raises:
        UserError: naming the source, the column, the columns that are there and the nearest.
    """
    there: dict[str, None] = {}

    def is_there(names: Sequence[str]) -> bool:
        return any(plain(name) in there for name in names or caption_columns(there))

    for columns in found:
        there |= dict.fromkeys(map(plain, columns))
        if all(map(is_there, needed)):
            return
    if not there:
        return
    names = next(names for names in needed if not is_there(names))
    shown = ", ".join(list(there)[:_NUM_SHOWN])
    more = f" and {len(there) - _NUM_SHOWN} more" if len(there) > _NUM_SHOWN else ""
    if not names:
        raise UserError(
            f"source {source!r}: no column in {where} is a caption by its name",
            f"Name it with `caption_columns`. The columns are {shown}{more}.",
        )
    nearest = get_close_matches(plain(names[0]), there, n=1)
    guess = f"Did you mean {nearest[0]!r}? " if nearest else ""
    raise UserError(
        f"source {source!r}: there is no column {' or '.join(map(repr, names))} in {where}",
        f"{guess}The columns are {shown}{more}.",
    )


def refuse_twins(where: Path | str, there: Sequence[str], used: Iterable[str]) -> None:
    """See that each column that is used is there once: which of two is meant, nobody can tell.

    Raises:
        UserError: naming the file and the column.
    """
    for name in used:
        if there.count(name) > 1:
            hint = "Give each column a name of its own."
            raise UserError(f"{where} has {there.count(name)} columns named {name!r}", hint)
