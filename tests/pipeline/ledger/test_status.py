import json

from jobs.run import open_corpus
from pipeline.engine.lock import holder_of, holding
from pipeline.ledger.events import last_run, of_part
from pipeline.ledger.status import stages, status


def line(second, stage, **what):
    return {"time": f"2026-01-01T00:00:{second:02d}+00:00", "stage": stage, **what}


RUN = [
    {"time": "2026-01-01T00:00:00+00:00", "run": "b", "event": "run-started"},
    line(0, "ingest", event="stage-started", parts=4, of=9),
    line(5, "ingest", event="part-done", part="p1", num_rows=100, num_rejects=1),
    line(10, "ingest", event="part-done", part="p2", num_rows=100, num_rejects=0),
    line(12, "score", event="stage-started", parts=9, of=9),
    line(13, "score", event="error", part="p1", error="boom"),
]


def write(root, events):
    root.mkdir(exist_ok=True)
    (root / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_stage_has_a_rate_and_while_a_run_goes_on_the_time_left():
    ingest, score = stages(RUN, is_running=True)
    assert (ingest["parts_done"], ingest["parts"], ingest["rows"]) == (2, 4, 200)
    assert (ingest["rows_per_s"], ingest["seconds_left"]) == (20, 10)
    assert (score["parts_done"], score["seconds_left"]) == (0, None)
    assert all(stage["seconds_left"] is None for stage in stages(RUN, is_running=False))


def test_a_stage_that_is_over_has_nothing_left():
    (ingest, _) = stages([*RUN, line(20, "ingest", event="stage-done")], is_running=True)
    assert (ingest["done"], ingest["seconds_left"]) == (True, None)


def test_a_step_over_the_whole_corpus_shows_its_rows():
    event = line(20, "deduplicate", event="stage-done", num_rows=30, seconds=1.5)
    *_, step = stages([*RUN, event], is_running=True)
    assert (step["stage"], step["rows"], step["rows_per_s"]) == ("deduplicate", 30, 20)
    assert (step["parts"], step["seconds_left"], step["done"]) == (None, None, True)


def test_only_the_last_run_is_read_from_the_end_of_the_file(tmp_path):
    old = [line(1, "ingest", event="part-done", part=f"{n}" * 99) for n in range(9000)]
    write(tmp_path, [RUN[0], *old, *RUN])
    with (tmp_path / "events.jsonl").open("a") as log:
        log.write('{"time": "2026-01-01T00:00:59+00:00", "stage": "cut sh')
    assert last_run(tmp_path) == RUN


def test_lines_of_earlier_versions_count_as_parts(tmp_path):
    write(tmp_path, [line(1, "ingest", part="p", num_rows=3), line(2, "ingest", parts=1)])
    (ingest,) = stages(last_run(tmp_path), is_running=False)
    assert (ingest["parts_done"], ingest["rows"], ingest["done"]) == (1, 3, True)
    assert [event["part"] for event in of_part(tmp_path, "p")] == ["p"]
    assert last_run(tmp_path / "nowhere") == []


def test_a_corpus_shows_its_tables_errors_and_holder(root):
    with (root / "events.jsonl").open("a") as log:
        log.writelines(json.dumps(event) + "\n" for event in RUN)
    assert holder_of(root) is None
    with holding(root):
        holder = holder_of(root)
        state = status(open_corpus(root)[1], holder)
    assert "process" in state["running"]
    assert [error["error"] for error in state["errors"]] == ["boom"]
    assert all(table["parts_done"] == table["parts"] for table in state["tables"].values())
    assert state["num_records"] == 32
    json.dumps(state)
