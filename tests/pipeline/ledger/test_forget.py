import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pyarrow as pa
import pytest

from jobs.forgetting import begin, take_out_unfinished
from jobs.run import fill, open_corpus
from jobs.upkeep import forget
from pipeline.engine.fingerprint import hash_file
from pipeline.engine.forgotten import Entry, gather, read_forgotten
from pipeline.engine.parts import record_id
from pipeline.engine.schemas import VARIANTS
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import read_table, write_table
from pipeline.errors import UserError
from pipeline.ledger.audit import audit
from pipeline.ledger.damage import damaged
from pipeline.ledger.forget import find_records
from pipeline.publish.card import write_card
from pipeline.selection.settings import Rule, SelectSettings
from tokenizer_cache.manifest import index_name

CHANGING = {"events.jsonl", ".lock", "recipe.yaml", "forgotten.parquet"}


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in CHANGING
    }


def contents(path):
    """All that a file says, as bytes that can be searched."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    rows = read_table(path).to_pylist()
    return b"\n".join(
        value if isinstance(value, bytes) else str(value).encode()
        for row in rows
        for value in row.values()
    )


def traces(root, needle):
    needle = needle if isinstance(needle, bytes) else needle.encode()
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and path.name != "forgotten.parquet" and needle in contents(path)
    )


def faults(root):
    return [finding for finding in audit(open_corpus(root)[1]) if finding.faults]


def shipped(root):
    """Id, image, caption, codes and part of a record that is in a shard with codes of its own."""
    _, corpus = open_corpus(root)
    rows = corpus.query(
        """
        SELECT record_id, image_id, caption, codes, records.part FROM records
        JOIN tokens USING (image_id) JOIN selection USING (record_id)
        WHERE selection.kind = 'original' ORDER BY record_id
        """
    ).fetchall()
    codes = Counter(row[3] for row in rows)
    return next(row for row in rows if codes[row[3]] == 1)


def test_a_forgotten_record_leaves_no_trace_and_other_shards_keep_their_bytes(root, recipe, quiet):
    # Tables and shards of an earlier recipe hold the record, too, and so do card, report and log.
    other = SelectSettings(rules={"clip_score": Rule(quantile=0.3)})
    fill(recipe.model_copy(update={"select": other}), root, until=None, reporter=quiet)
    fill(recipe, root, until=None, reporter=quiet)
    write_card(open_corpus(root)[1], embed=None)
    record, image, caption, codes, part = shipped(root)
    (root / "report.html").write_text(f"<p>{caption}</p>")
    with (root / "events.jsonl").open("a") as log:
        log.write(f'{{"event": "error", "error": "record {record}"}}\n')
    _, corpus = open_corpus(root)
    others = {s["file"]: s["sha256"] for s in corpus.published_shards() if s["part"] != part}
    assert traces(root, image)

    done = forget(root, [Entry(kind="record", value=record)], reporter=quiet)

    assert (done.num_records, done.is_complete) == (1, True)
    for needle in (image, caption, codes):
        assert not traces(root, needle)
    assert {path.split("/")[1] for path in traces(root, record)} == {"rejects-ingest"}
    _, corpus = open_corpus(root)
    now = {shard["file"]: shard["sha256"] for shard in corpus.published_shards()}
    assert others.items() <= now.items()
    assert corpus.query(
        f"SELECT stage, reason, detail FROM rejects WHERE record_id = '{record}'"
    ).fetchall() == [("ingest", "ingest-forgotten", None)]
    assert not faults(root)
    assert not (root / "forgetting.json").exists()
    assert (root / "README.md").exists()


def test_pictures_beside_a_model_go_with_a_forgotten_image_and_the_model_stays(root, quiet):
    _, corpus = open_corpus(root)
    model = corpus.models["vq"]
    sheet, before = model / "reconstructions.png", corpus.model_hash("vq")
    texts = "SELECT record_id FROM records WHERE image_id IS NULL LIMIT 1"
    ((text,),) = corpus.query(texts).fetchall()
    forget(root, [Entry(kind="record", value=text)], reporter=quiet)
    assert sheet.exists()
    record, *_ = shipped(root)
    forget(root, [Entry(kind="record", value=record)], reporter=quiet)
    assert not sheet.exists()
    _, corpus = open_corpus(root)
    assert corpus.models["vq"] == model
    assert corpus.model_hash("vq") == before
    assert not faults(root)
    assert not damaged(corpus)
    (model / "settings.json").write_text("{}")
    assert [damage.path for damage in damaged(corpus)] == [model]


def test_it_stays_away_when_its_source_changes(root, recipe, pictures, quiet, add_variants):
    record, _, caption, _, part = shipped(root)
    forget(root, [Entry(kind="record", value=record)], reporter=quiet)
    _, corpus = open_corpus(root)
    neighbour = next(
        row["key"]
        for row in read_table(corpus.tables["records"][part], ["key"]).to_pylist()
        if row["key"] not in {"00.png", "91.png"}
    )
    text = (pictures / neighbour).with_suffix(".txt")
    before, times = text.read_text(), (text.stat().st_atime_ns, text.stat().st_mtime_ns)
    text.write_text("a caption that has changed")
    try:
        fill(recipe, root, until="synthesis", reporter=quiet)
        add_variants(root)
        fill(recipe, root, until=None, reporter=quiet)
    finally:
        text.write_text(before)
        os.utime(text, ns=times)
    _, corpus = open_corpus(root)
    assert part not in {each.name for each in corpus.parts}
    assert not traces(root, caption)
    rows = corpus.query(f"SELECT reason FROM rejects WHERE record_id = '{record}'").fetchall()
    assert rows == [("ingest-forgotten",)]
    assert not faults(root)


def test_all_records_with_an_image_are_forgotten(root, quiet):
    _, corpus = open_corpus(root)
    ((image, first, second),) = corpus.query(
        "SELECT image_id, min(record_id), max(record_id) FROM records"
        " WHERE image_id IS NOT NULL GROUP BY ALL HAVING count(*) > 1"
    ).fetchall()
    done = forget(root, [Entry(kind="image-id", value=image)], reporter=quiet)
    assert done.num_records == 2
    _, corpus = open_corpus(root)
    reasons = corpus.query(
        f"SELECT reason FROM rejects WHERE record_id IN ('{first}', '{second}')"
    ).fetchall()
    assert reasons == [("ingest-forgotten",)] * 2
    assert not traces(root, image)
    assert not faults(root)


def test_a_duplicate_comes_back_when_the_record_that_stayed_is_forgotten(root, quiet):
    _, corpus = open_corpus(root)
    sql = "SELECT record_id, duplicate_of FROM duplicates"
    ((duplicate, keeper),) = corpus.query(sql).fetchall()
    forget(root, [Entry(kind="record", value=keeper)], reporter=quiet)
    _, corpus = open_corpus(root)
    assert corpus.query("SELECT count(*) FROM duplicates").fetchall() == [(0,)]
    reasons = corpus.query(f"SELECT reason FROM rejects WHERE record_id = '{duplicate}'").fetchall()
    assert ("duplicate-image",) not in reasons
    assert {path.split("/")[1] for path in traces(root, keeper)} == {"rejects-ingest"}
    assert not faults(root)


def test_a_stretch_of_a_source_is_forgotten_with_what_ingest_had_rejected(root, quiet):
    done = forget(root, [Entry(kind="source-prefix", value="folder/9")], reporter=quiet)
    assert done.num_records == 2
    _, corpus = open_corpus(root)
    rows = corpus.query(
        "SELECT record_id, detail FROM rejects WHERE reason = 'ingest-forgotten'"
    ).fetchall()
    ids = {record_id("folder", key) for key in ("90.png", "91.png")}
    assert dict(rows) == dict.fromkeys(ids)
    assert not traces(root, "90.png: ")
    assert not faults(root)


def test_nothing_but_its_own_files_is_rewritten(root, quiet):
    before = bytes_of(root)
    record, *_, part = shipped(root)
    forget(root, [Entry(kind="record", value=record)], reporter=quiet)
    after = bytes_of(root)
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    _, corpus = open_corpus(root)
    shards = [each["file"] for each in corpus.published_shards() if each["part"] == part]
    lists = (path.name for path in corpus.shards.glob("*.json"))
    mine = {*lists, *shards, *map(index_name, shards)}
    assert all(part in name or name.rpartition("/")[2] in mine for name in changed)
    assert not any(name.startswith("models/") for name in changed)


def test_what_is_not_there_is_remembered(root, quiet):
    before = bytes_of(root)
    done = forget(root, [Entry(kind="image-id", value="f" * 64)], reporter=quiet)
    assert done.num_records == 0
    assert bytes_of(root) == before
    assert read_forgotten(root).covers(source="s", key="k", record_id="r", image_id="f" * 64)


def test_a_key_where_an_id_belongs_is_an_error_and_is_not_remembered(root, quiet):
    with pytest.raises(UserError, match=r"record 'cat\.png': an id has"):
        forget(root, [Entry(kind="record", value="cat.png")], reporter=quiet)
    assert not read_forgotten(root).record_ids


def test_to_forget_nothing_is_an_error(root, quiet):
    with pytest.raises(UserError, match="there is nothing to forget"):
        forget(root, [], reporter=quiet)


def test_a_corpus_that_is_not_filled_forgets_and_goes_on_with_the_next_run(root, recipe, quiet):
    record, image, *_ = shipped(root)
    for path in (root / "tables" / "selection").rglob("*.parquet"):
        path.unlink()
    done = forget(root, [Entry(kind="record", value=record)], reporter=quiet)
    assert (done.num_records, done.is_complete) == (1, False)
    assert not traces(root, image)
    fill(recipe, root, until=None, reporter=quiet)
    assert not (root / "forgetting.json").exists()
    assert not faults(root)


def test_tables_of_an_earlier_version_keep_their_columns(root, quiet):
    record, _, caption, _, part = shipped(root)
    old = VARIANTS.remove(VARIANTS.get_field_index("seed"))
    path = root / "tables" / "variants" / "0123456789abcdef" / f"{part}.parquet"
    row = {name: caption if pa.types.is_string(old.field(name).type) else 1 for name in old.names}
    write_table(path, [{**row, "record_id": record}, {**row, "record_id": "other"}], old)
    forget(root, [Entry(kind="record", value=record)], reporter=quiet)
    assert read_table(path)["record_id"].to_pylist() == ["other"]
    assert read_table(path).column_names == old.names


KILLED = """
import json, os, signal, sys
from pathlib import Path
from rich.console import Console
from jobs.progress import Reporter
from jobs.upkeep import forget
from pipeline.engine import storage
from pipeline.engine.forgotten import Entry

def die_at(commits):
    flush, left = storage.flush, 2 * commits
    def dying_flush(path):
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)
    storage.flush = dying_flush

statuses = []
for commits, root in json.loads(sys.argv[2]):
    pid = os.fork()
    if not pid:
        die_at(commits)
        entries = [Entry(kind="record", value=sys.argv[1])]
        forget(Path(root), entries, reporter=Reporter(Console(quiet=True)))
        os._exit(0)
    statuses.append(os.waitpid(pid, 0)[1])
print(statuses)
"""
"""Forgets a record in some corpora, and is killed at some commit of each."""


@pytest.mark.parametrize(
    "commits", [(1, 3, 9), pytest.param((2, 6, 14, 18), marks=pytest.mark.slow)]
)
def test_a_forget_that_is_killed_is_completed_by_the_next_command(
    made, recipe, tmp_path, quiet, commits
):
    """SIGKILL at some commit, then a run: the same bytes as of a forget that nothing disturbed."""
    record, *_ = shipped(made)
    roots = {number: tmp_path / str(number) for number in commits}
    undisturbed = tmp_path / "undisturbed"
    for root in (*roots.values(), undisturbed):
        shutil.copytree(made, root)
    killed = json.dumps([(number, str(root)) for number, root in roots.items()])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, record, killed],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [signal.SIGKILL] * len(commits)

    forget(undisturbed, [Entry(kind="record", value=record)], reporter=quiet)
    for number, root in roots.items():
        if number == 1:  # the marker itself was not committed: nothing has begun
            forget(root, [Entry(kind="record", value=record)], reporter=quiet)
        fill(recipe, root, until=None, reporter=quiet)
        assert bytes_of(root) == bytes_of(undisturbed)
        assert not faults(root)


def test_answers_that_were_kept_for_a_part_under_way_go_with_its_record(root, keep_answers, quiet):
    _, corpus = open_corpus(root)
    first, last = corpus.parts[0], corpus.parts[-1]
    (gone,) = read_table(corpus.tables["records"][first.name])["record_id"].to_pylist()[:1]
    affected = keep_answers(root, first.name, gone)
    other = keep_answers(root, last.name, "another")
    forget(root, [Entry(kind="record", value=gone)], reporter=quiet)
    assert not affected.exists()
    assert other.exists()


def test_what_the_tries_at_a_part_under_way_say_goes_with_its_record(root):
    _, corpus = open_corpus(root)
    first, last = corpus.parts[0], corpus.parts[-1]
    gone, caption = read_table(corpus.tables["records"][first.name]).to_pylist()[0], "a secret"
    files = [root / "attempts" / "score" / f"{part.name}.json" for part in (first, last)]
    for path in files:
        tries = [{"run": "r", "who": "p", "records": [], "error": f"ValueError: {caption}"}]
        commit_json(path, {"tries": tries, "quarantined": {gone["record_id"]: caption}})
    begin(root, [Entry(kind="record", value=gone["record_id"])], is_filled=False)
    take_out_unfinished(root)
    assert [path.exists() for path in files] == [False, True]


def test_of_many_prefixes_those_that_begin_a_name_or_an_origin_find_it(root):
    _, corpus = open_corpus(root)
    rows = read_table(corpus.tables["records"][corpus.parts[0].name]).to_pylist()
    wanted = {rows[0]["record_id"], rows[1]["record_id"]}
    prefixes = [f"{rows[0]['source']}/{rows[0]['key']}", rows[1]["origin"]]
    prefixes += [f"elsewhere/{number}" for number in range(2000)] + ["elsewhere/"]
    entries = [Entry(kind="source-prefix", value=prefix) for prefix in prefixes]
    found = find_records(root, gather(entries))
    ids = {record_id for records in found.values() for record_id in records}
    everything = [
        row for path in corpus.tables["records"].values() for row in read_table(path).to_pylist()
    ]
    assert wanted <= ids
    assert ids == {
        row["record_id"]
        for row in everything
        if any(
            f"{row['source']}/{row['key']}".startswith(prefix)
            or (row["origin"] or "").startswith(prefix)
            for prefix in prefixes
        )
    }
