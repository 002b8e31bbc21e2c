import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.engine.corpus import Task
from pipeline.engine.schemas import REJECTS, VARIANTS
from pipeline.engine.stage import Work
from pipeline.engine.tables import read_table
from pipeline.engine.worker import Advance, PartDone, Result, results_of
from pipeline.synthesis.collector import ERROR_COLUMN, STAGE, Collector
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.settings import SynthesisSettings

PROMPTS = load_prompts(SynthesisSettings())
ANSWER = json.dumps(
    {
        "caption": "A picture of an apple.",
        "style": "A pencil sketch of an apple.",
        "negative": "pear, plum",
    }
)


def collector() -> Collector:
    return Collector(prompts=PROMPTS, model="tiny@0", max_tokens=100)


def row(
    folder: Path, part: str, position: int, num_requests: int, **changes: Any
) -> dict[str, Any]:
    task = Task(
        work=Work(part=part),
        output=folder / f"{part}.parquet",
        rejects=folder / f"{part}-rejects.parquet",
    )
    tasks = json.dumps({STAGE: task.to_json(), "score": "later"})
    return {
        "row": json.dumps({"part": part, "tasks": tasks, "done": "[]"}),
        "num_requests": num_requests,
        "started": 0.0,
        "position": position,
        "record_id": f"{part}-{position}",
        "caption": "red apple",
        "style": "pencil sketch",
        "seed": 1,
        "attempt": 1,
        "generated_text": ANSWER,
        "num_input_tokens": 300,
        "num_generated_tokens": 30,
        ERROR_COLUMN: "",
    } | changes


def results(gathered: pa.Table) -> list[Result]:
    return [result for row in gathered.to_pylist() for result in results_of(row)]


def variants(folder: Path, part: str) -> list[dict[str, Any]]:
    table = read_table(folder / f"{part}.parquet")
    assert table.schema.equals(VARIANTS)
    return table.to_pylist()


def rejects(folder: Path, part: str) -> list[dict[str, Any]]:
    table = read_table(folder / f"{part}-rejects.parquet")
    assert table.schema.equals(REJECTS)
    return table.to_pylist()


def test_part_is_committed_with_its_last_answer(tmp_path: Path) -> None:
    gather = collector()
    first = gather(pa.Table.from_pylist([row(tmp_path, "a", 1, 2), row(tmp_path, "b", 0, 2)]))
    assert results(first) == [Advance(stage=STAGE, num_records=2, num_tokens=60)]
    assert not list(tmp_path.iterdir())
    passed_on, _ = gather(pa.Table.from_pylist([row(tmp_path, "a", 0, 2)])).to_pylist()
    (done,) = results_of(passed_on)
    assert isinstance(done, PartDone)
    assert (done.part, done.num_rows, done.num_rejects) == ("a", 6, 0)
    assert json.loads(passed_on["tasks"])["score"] == "later"
    assert [found["record_id"] for found in variants(tmp_path, "a")] == ["a-0"] * 3 + ["a-1"] * 3
    assert rejects(tmp_path, "a") == []
    assert not (tmp_path / "b.parquet").exists()


def test_order_of_answers_does_not_change_the_file(tmp_path: Path) -> None:
    for order, folder in ((range(5), tmp_path / "up"), (reversed(range(5)), tmp_path / "down")):
        rows = [row(folder, "a", position, 5) for position in order]
        collector()(pa.Table.from_pylist(rows))
    assert (tmp_path / "up/a.parquet").read_bytes() == (tmp_path / "down/a.parquet").read_bytes()


def test_answer_that_comes_twice_counts_once(tmp_path: Path) -> None:
    gather = collector()
    again = pa.Table.from_pylist([row(tmp_path, "a", 0, 2)])
    for _ in range(2):
        assert not any(isinstance(each, PartDone) for each in results(gather(again)))
    gather(pa.Table.from_pylist([row(tmp_path, "a", 1, 2)]))
    assert len(variants(tmp_path, "a")) == 6


def test_failed_request_becomes_rejects_and_leaves_the_record_in(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("generated_text", "num_generated_tokens", "num_input_tokens"))
    failed = row(tmp_path, "a", 0, 2, **nothing, **{ERROR_COLUMN: "ValueError: too long"})
    cut_off = {"generated_text": '{"caption":"A', "num_generated_tokens": 100}
    collector()(pa.Table.from_pylist([failed, row(tmp_path, "a", 1, 2, **cut_off)]))
    assert variants(tmp_path, "a") == []
    found = rejects(tmp_path, "a")
    assert [reject["reason"] for reject in found] == ["synthesis-engine-error"] * 3 + [
        "synthesis-cut-off"
    ] * 3
    assert all(reject["variant_id"] is not None for reject in found)
    assert len({reject["variant_id"] for reject in found}) == 6
    assert "too long" in found[0]["detail"]


def test_variant_says_where_it_comes_from(tmp_path: Path) -> None:
    collector()(pa.Table.from_pylist([row(tmp_path, "a", 0, 1)]))
    by_kind = {found["kind"]: found for found in variants(tmp_path, "a")}
    assert by_kind["style"]["style"] == "pencil sketch"
    assert by_kind["caption"]["style"] is None
    assert by_kind["caption"]["model"] == "tiny@0"
    assert by_kind["caption"]["prompt"] == PROMPTS.fingerprint
    assert (by_kind["negative"]["num_prompt_tokens"], by_kind["negative"]["seed"]) == (300, 1)
    assert len({found["variant_id"] for found in by_kind.values()}) == 3
