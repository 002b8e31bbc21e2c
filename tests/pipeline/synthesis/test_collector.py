import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.engine.corpus import Task
from pipeline.engine.schemas import ANSWERS, RECORDS, VARIANTS
from pipeline.engine.stage import Work
from pipeline.engine.tables import read_table, write_table
from pipeline.engine.worker import Advance, Left, PartDone, again_of, results_of
from pipeline.errors import UserError
from pipeline.synthesis import answers
from pipeline.synthesis.budget import SPENT
from pipeline.synthesis.collector import Collector
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.judge import JudgeWorker, judge
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.requests import ERROR_COLUMN, PASSED_BY, STAGE, read_requests
from pipeline.synthesis.settings import SynthesisSettings
from tests.pipeline.synthesis.slow_ingest import record

SETTINGS = SynthesisSettings(attempts=2, shares={"caption": 1})
PROMPTS = load_prompts(SETTINGS)
GOOD = {
    "tags": "apple, red",
    "sentence": "A picture of an apple.",
    "dense": "The picture shows an apple. It is a red apple.",
}

Row = dict[str, Any]


def make_task(folder: Path, part: str, num_records: int, captions: Sequence[str] = ()) -> Task:
    records = folder / "tables" / "records" / "print" / f"{part}.parquet"
    rows = [
        record(f"{part}-{index}", captions[index] if captions else "red apple")
        for index in range(num_records)
    ]
    write_table(records, rows, RECORDS)
    return Task(
        work=Work(part=part, inputs={"records": records}),
        output=folder / "tables" / "answers" / "print" / f"{part}.parquet",
        rejects=folder / "tables" / "rejects-ask" / "print" / f"{part}.parquet",
    )


def chain_row(task: Task) -> dict[str, str]:
    tasks = {STAGE: task.to_json(), "score": "later"}
    return {"part": task.work.part, "tasks": json.dumps(tasks), "done": "[]"}


def requests_of(row: dict[str, str], settings: SynthesisSettings = SETTINGS) -> list[Row]:
    return read_requests(row, settings=settings, prompts=PROMPTS, cut=1.0)


def collector(settings: SynthesisSettings = SETTINGS, *, num_parts: int = 9) -> Collector:
    return Collector(
        settings=settings, prompts=PROMPTS, cut=1.0, model="tiny@0", num_parts=num_parts
    )


def answered(request: Row, **changes: Any) -> Row:
    """A request with an answer that is taken."""
    opening = PROMPTS.styles[request["style"]]
    texts = {
        **GOOD,
        "style": f"{opening} an apple.",
        "bridge": "Beside the red apple there is a green apple.",
    }
    text = json.dumps({form: texts.get(form, "") for form in request["forms"]})
    return (
        request
        | {
            "generated_text": text,
            "num_input_tokens": 300,
            "num_generated_tokens": 30,
            ERROR_COLUMN: "",
        }
        | changes
    )


def gather(into: Collector, rows: list[Row]) -> list[dict[str, str]]:
    return into(pa.Table.from_pylist(rows)).to_pylist()


def committed(task: Task) -> list[Row]:
    table = read_table(task.output)
    assert table.schema.equals(ANSWERS)
    return table.to_pylist()


def test_part_goes_on_with_its_last_answer(tmp_path: Path) -> None:
    task, other = make_task(tmp_path, "a", 2), make_task(tmp_path, "b", 2)
    first, second = requests_of(chain_row(task))
    into = collector()
    (told,) = gather(into, [answered(second), answered(requests_of(chain_row(other))[0])])
    assert list(results_of(told)) == [Advance(stage=STAGE, num_records=2, num_tokens=60)]
    assert not task.output.exists()
    passed_on, _ = gather(into, [answered(first)])
    (done,) = results_of(passed_on)
    assert isinstance(done, PartDone)
    assert (done.part, done.num_rows, done.error) == ("a", 2, "")
    assert json.loads(passed_on["tasks"])["score"] == "later"
    assert [row["record_id"] for row in committed(task)] == ["a-0", "a-1"]
    assert not other.output.exists()
    assert not (tmp_path / "answers" / "print" / "a").exists()


def test_failed_text_is_asked_for_again_with_the_reason(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 2)
    row = chain_row(task)
    first, second = requests_of(row)
    wrong = json.dumps(GOOD | {"sentence": "Red apple", "dense": "A blue one. It is old."})
    sent, _ = gather(collector(), [answered(first), answered(second, generated_text=wrong)])
    assert json.loads(sent["tasks"]) == {}  # the stages behind leave it alone
    again = again_of(sent)
    assert again is not None
    (retry,) = requests_of(again)
    assert (retry["record_id"], retry["attempt"], retry["num_requests"]) == ("a-1", 2, 1)
    assert (retry["kind"], retry["forms"]) == ("caption", ["sentence", "dense"])
    assert retry["seed"] != second["seed"]
    asked = json.loads(retry["messages"][-1]["content"])
    assert asked["wrong"] == {"sentence": "Red apple", "dense": "A blue one. It is old."}
    assert asked["because"]["sentence"] == "it only repeats the text"
    done, _ = gather(collector(), [answered(retry)])
    assert again_of(done) is None
    assert [(row["record_id"], row["attempt"]) for row in committed(task)] == [
        ("a-0", 1), ("a-1", 1), ("a-1", 2),
    ]  # fmt: skip


def test_attempts_come_to_an_end(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 1)
    row = chain_row(task)
    for _ in range(SETTINGS.attempts):
        (request,) = requests_of(row)
        sent, _ = gather(collector(), [answered(request, generated_text="no JSON")])
        row = again_of(sent) or row
    assert again_of(sent) is None
    assert len(committed(task)) == 2


def test_request_that_the_engine_refuses_is_not_sent_again(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 1)
    (request,) = requests_of(chain_row(task))
    nothing = {"generated_text": "", "num_generated_tokens": 0, "num_input_tokens": 0}
    error = {ERROR_COLUMN: "ValueError: too long"}
    sent, _ = gather(collector(num_parts=1), [answered(request, **nothing, **error)])
    assert again_of(sent) is None
    (row,) = committed(task)
    assert (row["text"], row["error"]) == (None, "ValueError: too long")


def test_answer_that_comes_twice_counts_once(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 2)
    first, second = requests_of(chain_row(task))
    into = collector()
    for _ in range(2):
        (told,) = gather(into, [answered(first)])
        assert all(isinstance(each, Advance) for each in results_of(told))
    gather(into, [answered(second)])
    assert len(committed(task)) == 2


def test_killed_run_asks_only_for_what_has_no_answer(tmp_path: Path) -> None:
    row = chain_row(make_task(tmp_path, "a", 5))
    requests = requests_of(row)
    gather(collector(), [answered(request) for request in requests[:3]])
    left = requests_of(row)  # another process, which knows nothing but the corpus
    assert [request["record_id"] for request in left] == ["a-3", "a-4"]
    assert {request["num_requests"] for request in left} == {2}


def test_part_whose_answers_are_all_there_is_committed_without_an_engine(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 1)
    row = chain_row(task)
    (request,) = requests_of(row)
    (row_of_answers,) = [collector()._answer(answered(request))]
    answers.keep(task, [row_of_answers])  # killed between this and the commit
    (passing,) = requests_of(row)
    assert passing[ERROR_COLUMN] == PASSED_BY
    gather(collector(), [passing])
    assert len(committed(task)) == 1


@pytest.mark.parametrize("seed", range(3))
@hypothesis_settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_bytes_do_not_depend_on_order_batches_or_kills(tmp_path_factory, seed, data) -> None:
    whole = make_task(tmp_path_factory.mktemp("whole"), "a", 6)
    gather(collector(), [answered(request) for request in requests_of(chain_row(whole))])
    broken = make_task(tmp_path_factory.mktemp("broken"), "a", 6)
    into = collector()
    while not broken.output.exists():
        requests = requests_of(chain_row(broken))
        if requests[0][ERROR_COLUMN] == PASSED_BY:
            gather(into, requests)
            break
        order = data.draw(st.permutations(requests))
        size = data.draw(st.integers(1, 6))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        for batch in batches[: data.draw(st.integers(1, len(batches)))]:
            gather(into, [answered(request) for request in batch])
        into = collector()  # killed
    assert whole.output.read_bytes() == broken.output.read_bytes()


def test_kinds_of_a_record_are_asked_for_and_rewritten_by_themselves(tmp_path: Path) -> None:
    settings = SynthesisSettings(attempts=2, shares={"caption": 1, "style": 1})
    row = chain_row(make_task(tmp_path, "a", 1))
    by_kind = {request["kind"]: request for request in requests_of(row, settings)}
    assert by_kind.keys() == {"caption", "style"}
    into = collector(settings)
    gather(into, [answered(by_kind["caption"])])
    sent, _ = gather(into, [answered(by_kind["style"], generated_text="no JSON")])
    again = again_of(sent)
    assert again is not None
    (retry,) = requests_of(again, settings)
    assert (retry["kind"], retry["attempt"], retry["style"]) == (
        "style", 2, by_kind["style"]["style"],
    )  # fmt: skip


def test_shares_say_how_many_records_are_asked_for_a_kind(tmp_path: Path) -> None:
    settings = SynthesisSettings(shares={"caption": 1, "text": 0.3, "interleave": 0.5})
    requests = requests_of(chain_row(make_task(tmp_path, "a", 200)), settings)
    counts = Counter(request["kind"] for request in requests)
    assert counts["caption"] == 200
    assert 40 < counts["text"] < 80
    assert counts["interleave"] == 0  # all captions are the same: nothing to lead on to
    assert "style" not in counts


def test_record_leads_on_to_a_related_one(tmp_path: Path) -> None:
    settings = SynthesisSettings(shares={"interleave": 1})
    task = make_task(tmp_path, "a", 2, ["red apple", "green apple"])
    (request,) = requests_of(chain_row(task), settings)
    assert json.loads(request["messages"][-1]["content"]) == {
        "text": "red apple", "next": "green apple",
    }  # fmt: skip
    gather(collector(settings), [answered(request)])
    (row,) = committed(task)
    assert (row["record_id"], row["next_id"]) == ("a-0", "a-1")


@pytest.mark.parametrize("tokens", [160, 320, 700])
def test_record_is_asked_no_more_than_its_tokens_allow(tmp_path: Path, tokens: int) -> None:
    settings = SynthesisSettings(
        shares={"caption": 1, "style": 1, "negative": 1}, tokens_per_record=tokens, attempts=9
    )
    row = chain_row(make_task(tmp_path, "a", 6))
    kinds, spent = Counter[str](), Counter[str]()
    while (requests := requests_of(row, settings))[0][ERROR_COLUMN] != PASSED_BY:
        kinds.update(request["kind"] for request in requests)
        spent.update(request["record_id"] for request in requests)
        cut = {"generated_text": "no JSON", "num_generated_tokens": 100}
        sent, _ = gather(collector(settings), [answered(each, **cut) for each in requests])
        row = again_of(sent) or row
        if not again_of(sent):
            break
    assert max(spent.values()) * 100 <= tokens
    assert len(kinds) == 3  # it is another kind that a record misses each time


def test_kind_that_is_never_taken_is_asked_for_less_with_a_budget(tmp_path: Path) -> None:
    settings = SynthesisSettings(
        shares={"caption": 1, "style": 1}, attempts=1, budget=10**6, min_chance=0.1
    )
    asked = []
    for part in ("a", "b"):
        requests = requests_of(chain_row(make_task(tmp_path, part, 100)), settings)
        asked.append(Counter(request["kind"] for request in requests))
        bad = {"generated_text": "no JSON"}
        rows = [answered(each, **(bad if each["kind"] == "style" else {})) for each in requests]
        gather(collector(settings), rows)
    assert asked[0] == {"caption": 100, "style": 100}
    assert asked[1]["caption"] == 100
    assert 3 <= asked[1]["style"] <= 20


def test_part_whose_requests_found_no_room_in_the_budget_stays_open(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 2)
    row = chain_row(task)
    first, second = requests_of(row)
    sent, told = gather(collector(), [answered(first), second | {ERROR_COLUMN: SPENT}])
    assert list(results_of(sent)) == [Left(stage=STAGE, why=SPENT)]
    assert again_of(sent) is None
    assert not task.output.exists()
    assert list(results_of(told)) == [Advance(stage=STAGE, num_records=1, num_tokens=30)]
    (left,) = requests_of(row)  # the next run
    assert left["record_id"] == second["record_id"]


def test_llm_judges_in_a_round_of_its_own_and_its_reason_reaches_the_rewrite(
    tmp_path: Path,
) -> None:
    critics = CriticSettings(judge=True)
    settings = SynthesisSettings(attempts=2, shares={"caption": 1}, critics=critics)
    task = make_task(tmp_path, "a", 1)
    row = chain_row(task)
    (request,) = requests_of(row, settings)
    sent, _ = gather(collector(settings), [answered(request)])
    row = again_of(sent) or row
    (asked,) = requests_of(row, settings)
    assert (asked["role"], asked["attempt"], asked["forms"]) == ("judge", 1, list(GOOD))
    marks = {"faithful": 5, "natural": 5, "useful": 5, "why": "nothing"}
    said = dict.fromkeys(GOOD, marks) | {"dense": {**marks, "useful": 1, "why": "says less"}}
    sent, _ = gather(collector(settings), [answered(asked, generated_text=json.dumps(said))])
    (retry,) = requests_of(again_of(sent) or row, settings)
    assert (retry["role"], retry["attempt"], retry["forms"]) == ("write", 2, ["dense"])
    assert json.loads(retry["messages"][-1]["content"])["because"] == {"dense": "says less"}


def test_clip_judges_before_the_part_goes_on(tmp_path: Path) -> None:
    def scorer(_work: Work, texts: Sequence[tuple[str, dict[str, str]]]) -> list[dict[str, float]]:
        return [{name: 0.0 if name == "dense" else 0.5 for name in each} for _, each in texts]

    scorer.name = "clip@0"  # type: ignore[attr-defined]
    critics = CriticSettings(max_clip_loss=0.1)
    settings = SynthesisSettings(attempts=1, shares={"caption": 1}, critics=critics)
    task = make_task(tmp_path, "a", 2)
    into = Collector(
        settings=settings, prompts=PROMPTS, cut=1, model="tiny@0", num_parts=1, scorer=scorer
    )
    gather(into, [answered(request) for request in requests_of(chain_row(task), settings)])
    rows = committed(task)
    assert [(row["record_id"], row["role"]) for row in rows] == [
        ("a-0", "write"), ("a-0", "clip"), ("a-1", "write"), ("a-1", "clip"),
    ]  # fmt: skip
    captions = {f"a-{number}": ("red apple",) for number in range(2)}
    found = judge(settings, PROMPTS, captions, rows[:2])
    assert set(found.accepted) == {"tags", "sentence"}
    assert set(found.open) == {"dense"}


DOWN = {ERROR_COLUMN: "synthesis-server-error: 503", "generated_text": None}


def kept_for(task: Task) -> list[Row]:
    return [row for rows in answers.kept(task).values() for row in rows]


def test_sick_backend_stops_the_run_and_only_answers_are_kept(tmp_path: Path) -> None:
    tasks = [make_task(tmp_path, "a", 20), make_task(tmp_path, "b", 60)]
    first, second = [requests_of(chain_row(task)) for task in tasks]
    into = collector(num_parts=2)
    sent = gather(into, [answered(request) for request in first[:19]])
    sent += gather(into, [answered(first[19], **DOWN)])  # ends its part's round
    with pytest.raises(UserError, match="31 of the last 50 requests have failed"):
        for request in second:
            sent += gather(into, [answered(request, **DOWN)])
    assert all(isinstance(each, Advance) for row in sent for each in results_of(row))
    assert not any(task.output.exists() for task in tasks)
    assert [row["error"] for task in tasks for row in kept_for(task)] == [None] * 19


def test_failure_is_kept_when_the_requests_after_it_are_answered(tmp_path: Path) -> None:
    task, other = make_task(tmp_path, "a", 1), make_task(tmp_path, "b", 60)
    (request,) = requests_of(chain_row(task))
    into = collector()
    gather(into, [answered(request, **DOWN)])
    for number, later in enumerate(requests_of(chain_row(other)), start=1):
        sent = gather(into, [answered(later)])
        assert len(sent) == (2 if number in {50, 60} else 1)
        assert task.output.exists() == (number >= 50)
    (row,) = committed(task)
    assert row["error"] == DOWN[ERROR_COLUMN]


def test_few_requests_none_of_which_is_answered_stop_the_run(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 3)
    requests = requests_of(chain_row(task))
    with pytest.raises(UserError, match="3 of the last 3"):
        gather(collector(num_parts=1), [answered(request, **DOWN) for request in requests])
    assert kept_for(task) == []


def test_last_part_of_a_run_does_not_wait_for_others(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 3)
    requests = requests_of(chain_row(task))
    into = collector(num_parts=1)
    gather(into, [answered(request) for request in requests[:2]])
    done, _ = gather(into, [answered(requests[2], **DOWN)])
    assert again_of(done) is None
    assert [row["error"] for row in committed(task)] == [None, None, DOWN[ERROR_COLUMN]]


def test_part_that_has_gone_on_is_not_sent_twice(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 1)
    (request,) = requests_of(chain_row(task))
    into = collector()
    assert len(gather(into, [answered(request)])) == 2
    assert len(gather(into, [answered(request)])) == 1


PROSE = "I would love to help! Which picture do you mean?"


def answer_all(into: Collector, requests: list[Row], **changes: Any) -> None:
    for request in requests:
        gather(into, [answered(request, **changes)])


def test_run_that_begins_with_answers_nobody_can_read_stops_and_keeps_them(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 60)
    requests = requests_of(chain_row(task))
    with pytest.raises(UserError, match="46 of the first 50 answers are of no use") as stop:
        answer_all(collector(), requests, generated_text=PROSE)
    assert PROSE in stop.value.message
    assert len(kept_for(task)) == 46


def test_refusals_of_the_llm_count_as_of_no_use(tmp_path: Path) -> None:
    requests = requests_of(chain_row(make_task(tmp_path, "a", 60)))
    refused = {ERROR_COLUMN: "synthesis-refused: I cannot help with that.", "generated_text": None}
    with pytest.raises(UserError, match="46 of them for synthesis-refused"):
        answer_all(collector(), requests, **refused)


def test_what_the_critics_refuse_and_rewrites_stop_no_run(tmp_path: Path) -> None:
    requests = requests_of(chain_row(make_task(tmp_path, "a", 60)))
    answer_all(collector(), requests, generated_text=json.dumps(GOOD | {"sentence": "Red apple"}))
    again = [request | {"attempt": 2} for request in requests]
    answer_all(collector(), again, generated_text=PROSE)


def test_recorded_answers_are_played_to_their_end(tmp_path: Path) -> None:
    replayed = SETTINGS.model_copy(update={"backend": "replay"})
    requests = requests_of(chain_row(make_task(tmp_path, "a", 60)))
    answer_all(collector(replayed), requests, generated_text=PROSE)


UNCOUNTED = {"num_input_tokens": None, "num_generated_tokens": None, "finish_reason": None}


def test_answer_without_a_count_of_its_tokens_becomes_variants(tmp_path: Path) -> None:
    task = make_task(tmp_path, "a", 1)
    (request,) = requests_of(chain_row(task))
    _, told = gather(collector(), [answered(request, **UNCOUNTED)])
    (advance,) = results_of(told)
    assert isinstance(advance, Advance)
    assert advance.num_tokens > 0  # an estimate
    work = Work(part="a", inputs={**task.work.inputs, "answers": task.output})
    output = JudgeWorker(SETTINGS, {})(work)
    path = tmp_path / "variants.parquet"
    write_table(path, output.rows, VARIANTS)
    rows = read_table(path).to_pylist()
    assert {row["form"] for row in rows} == set(GOOD)
    assert {row["num_output_tokens"] for row in rows} == {None}


def test_tokens_that_nobody_has_counted_still_use_up_those_of_a_record(tmp_path: Path) -> None:
    settings = SynthesisSettings(shares={"caption": 1}, tokens_per_record=200, attempts=9)
    (request,) = requests_of(chain_row(make_task(tmp_path, "a", 1)), settings)
    long = {**UNCOUNTED, "generated_text": "no JSON " * 30}
    sent, _ = gather(collector(settings), [answered(request, **long)])
    assert again_of(sent) is None


def test_what_a_backend_has_to_say_goes_on_to_the_run(tmp_path: Path) -> None:
    first, second = requests_of(chain_row(make_task(tmp_path, "a", 2)))
    rows = [answered(first, notices="one\ntwo"), answered(second, notices="")]
    _, told = gather(collector(), rows)
    (advance,) = results_of(told)
    assert isinstance(advance, Advance)
    assert advance.notices == "one\ntwo"
