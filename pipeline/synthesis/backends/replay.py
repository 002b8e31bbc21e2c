"""Answers requests from a record of earlier answers: for tests, and to make a run's corpus again.

The table `answers` of a corpus is such a record (`CORPUS/tables/answers/FINGERPRINT`), whoever gave
the answers; so is a Parquet or JSON lines file with the columns `request`, `text`, `error`,
`finish_reason`, `num_prompt_tokens` and `num_output_tokens`; all but the first two may be missing.
`request` is the hash that a request with those messages and sampling parameters carries.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.engine.tables import read_table
from pipeline.errors import UserError
from pipeline.synthesis.backends import errors
from pipeline.synthesis.backends.reply import Reply, add_replies
from pipeline.synthesis.requests import ERROR_COLUMN
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.text_files import decode_text

if TYPE_CHECKING:
    from ray.data import Dataset

_LIGHT = 0.5  # logical CPUs

_COLUMNS = {
    "request": pa.string(),
    "text": pa.string(),
    "error": pa.string(),
    "finish_reason": pa.string(),
    "num_prompt_tokens": pa.int64(),
    "num_output_tokens": pa.int64(),
}


def answer(settings: SynthesisSettings, dataset: Dataset, *, carried: Sequence[str]) -> Dataset:
    """See `backends.answer`.

    Raises:
        UserError: when the record is missing or is none.
    """
    import ray

    path = settings.replay
    assert path is not None, "the settings see to it"  # noqa: S101
    read_record(path)
    return dataset.map_batches(
        Player,
        fn_constructor_kwargs={"path": path, "carried": tuple(carried)},
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=_LIGHT,
    )


class Player:
    """Looks up the answers of a batch of rows; what Ray Data's actor is made of."""

    def __init__(self, path: Path, carried: Sequence[str]) -> None:
        self._record = read_record(path)
        self._rows = {hash_: row for row, hash_ in enumerate(self._record["request"].to_pylist())}
        self._carried = carried

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The same rows with their answers."""
        replies = [self._reply(row) for row in batch.to_pylist()]
        return add_replies(batch, replies, carried=self._carried)

    def _reply(self, row: Mapping[str, Any]) -> Reply:
        if row[ERROR_COLUMN]:
            return Reply(error=row[ERROR_COLUMN])
        place = self._rows.get(row["request"])
        if place is None:
            return Reply(error=errors.describe(errors.NOT_RECORDED, f"request {row['request']}"))
        (found,) = self._record.slice(place, 1).to_pylist()
        return Reply(
            generated_text=found["text"] if found["error"] else found["text"] or "",
            num_input_tokens=found["num_prompt_tokens"],
            num_generated_tokens=found["num_output_tokens"],
            finish_reason=found["finish_reason"],
            error=found["error"] or "",
        )


def read_record(path: Path) -> pa.Table:
    """The answers that a file, or the files of a folder, hold.

    Raises:
        UserError: when there is no such file, or when it is not what it should be.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    try:
        tables = [_read(file) for file in files]
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"synthesis.replay: {path} cannot be read: {error}", _WANTED) from error
    if not tables:
        raise UserError(f"synthesis.replay: there is no Parquet file in {path}.", _WANTED)
    return pa.concat_tables(tables)


_WANTED = (
    "It is a folder of the table `answers` of a corpus, or a Parquet or JSON lines file with at "
    "least the columns `request` and `text`."
)


def _read(file: Path) -> pa.Table:
    from pyarrow import json

    if file.suffix == ".jsonl":
        lines = decode_text(file.read_bytes()).text
        table = json.read_json(io.BytesIO(lines.encode("utf-8", "surrogateescape")))
    else:
        table = read_table(file)
    if not {"request", "text"} <= set(table.column_names):
        raise UserError(f"synthesis.replay: {file} lacks `request` or `text`.", _WANTED)
    for name, type_ in _COLUMNS.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), type_))
    # Not safe: some servers count half tokens.
    return table.select(list(_COLUMNS)).cast(pa.schema(list(_COLUMNS.items())), safe=False)
