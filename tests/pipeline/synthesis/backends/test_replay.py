import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.synthesis.backends.errors import classify
from pipeline.synthesis.backends.replay import Player, read_record
from pipeline.synthesis.requests import ERROR_COLUMN, PASSED_BY

RECORD = [
    {"request": "a", "text": '{"caption": "An apple."}', "num_output_tokens": 7},
    {"request": "b", "text": None, "error": "synthesis-timeout: no whole answer within 9 s"},
    {"request": "c", "text": '{"caption": "A', "finish_reason": "length"},
]


def write_lines(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def play(path: Path, *requests: dict[str, str]) -> list[dict[str, Any]]:
    batch = pa.Table.from_pylist([{"record_id": "r", ERROR_COLUMN: "", **row} for row in requests])
    return Player(path, ("record_id",))(batch).to_pylist()


def test_recorded_answers_come_back_whole_and_so_do_errors(tmp_path: Path) -> None:
    path = write_lines(tmp_path, RECORD)
    good, late, cut = play(path, {"request": "a"}, {"request": "b"}, {"request": "c"})
    assert good == {
        "record_id": "r",
        "generated_text": RECORD[0]["text"],
        "num_input_tokens": None,
        "num_generated_tokens": 7,
        "finish_reason": None,
        "num_billed_tokens": None,
        "notices": "",
        ERROR_COLUMN: "",
    }
    assert classify(late[ERROR_COLUMN])[0] == "synthesis-timeout"
    assert cut["finish_reason"] == "length"


def test_request_that_was_not_recorded_has_a_reason_of_its_own(tmp_path: Path) -> None:
    (row,) = play(write_lines(tmp_path, RECORD), {"request": "other"})
    assert classify(row[ERROR_COLUMN])[0] == "synthesis-not-recorded"
    assert row["generated_text"] is None


def test_row_that_is_marked_passes(tmp_path: Path) -> None:
    path = write_lines(tmp_path, RECORD)
    (row,) = play(path, {"request": "other", ERROR_COLUMN: PASSED_BY})
    assert row[ERROR_COLUMN] == PASSED_BY


def test_folder_of_parquet_files_is_one_record(tmp_path: Path) -> None:
    for number, row in enumerate(RECORD):
        table = pa.Table.from_pylist([row | {"more": number}])
        pq.write_table(table, tmp_path / f"{number}.parquet")
    assert read_record(tmp_path)["request"].to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize("content", [None, "", "no JSON\n", '{"text": "without a hash"}\n'])
def test_record_that_is_none_stops_before_any_work(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "answers.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"synthesis\.replay: ") as raised:
        read_record(path)
    assert "`request`" in raised.value.hint


def test_empty_folder_stops_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no Parquet file"):
        read_record(tmp_path)
