"""`anymix forget s3://…`: nothing of a record stays on the store, whatever kills it on the way."""

import shutil
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from jobs.cli import call
from jobs.progress import Reporter
from jobs.recipe import load_recipe
from jobs.run import fill, open_corpus
from jobs.upkeep import forget
from pipeline.engine.forgotten import Entry
from pipeline.engine.storage import on_store
from pipeline.engine.tables import read_table
from pipeline.ledger.audit import audit
from pipeline.publish.card import write_card
from tests.jobs.corpora import SMALL_MODELS

RECIPE = (
    SMALL_MODELS
    + """
name: forgetting
sources:
  - {kind: shapes, num_records: 40, size: 32}
  - {kind: pydoc, limit: 10}
ingest: {rows_per_part: 12, validation_share: 0.2}
run: {num_workers: 0}
"""
)
QUIET = Reporter(Console(quiet=True))
CHANGING = {"events.jsonl", ".lock", "recipe.yaml", "forgotten.parquet"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return load_recipe(path)


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory):
    """A whole corpus with a card, in a local folder."""
    root = tmp_path_factory.mktemp("made") / "corpus"
    write_card(fill(recipe, root, reporter=QUIET), embed=None)
    return root


@pytest.fixture
def root(made, store, tmp_path):
    """The same corpus on the store."""
    there = store.path(f"forgetting/{tmp_path.name}")
    filesystem, place = on_store(there)
    for path in made.rglob("*"):
        if path.is_file() and path.name != ".lock":
            filesystem.put_file(str(path), f"{place}/{path.relative_to(made).as_posix()}")
    return there


def fetch(root, folder):
    """A local copy of all that lies below a path on the store."""
    filesystem, place = on_store(root)
    for name in filesystem.find(place):
        target = folder / name.removeprefix(place).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(name, str(target))
    return folder


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in CHANGING
    }


def says(path, needle):
    """Whether a file holds some bytes, in a cell of it where it is a table."""
    if path.suffix != ".parquet":
        return needle in path.read_bytes()
    values = (value for row in read_table(path).to_pylist() for value in row.values())
    cells = (value if isinstance(value, bytes) else str(value).encode() for value in values)
    return any(needle in cell for cell in cells)


def traces(folder, needle):
    """The files that still say it, the list of what is forgotten left out."""
    needle = needle if isinstance(needle, bytes) else needle.encode()
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "forgotten.parquet" and says(path, needle)
    ]


def shipped(root):
    """Id, image, its bytes and the part of a record in a shard that shares its image with none."""
    _, corpus = open_corpus(root)
    return corpus.query(
        """
        SELECT record_id, image_id, image, records.part FROM records
        JOIN selection USING (record_id) WHERE selection.kind = 'original' AND image_id IN
            (SELECT image_id FROM records GROUP BY image_id HAVING count(*) = 1)
        ORDER BY record_id
        """
    ).fetchall()[0]


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory):
    """What forgetting the record leaves in a local folder when nothing comes in between."""
    folder = tmp_path_factory.mktemp("undisturbed") / "corpus"
    shutil.copytree(made, folder)
    forget(folder, [Entry(kind="record", value=shipped(made)[0])], reporter=QUIET)
    return bytes_of(folder)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["record", pytest.param("image-id", marks=pytest.mark.slow)])
def test_nothing_of_it_stays_and_only_what_held_it_is_written_again(
    root, made, undisturbed, store, tmp_path, kind, capsys
):
    record, image_id, image, part = shipped(made)
    value = record if kind == "record" else image_id
    store.writes()
    assert call(["forget", str(root), f"--{kind}", value]) == 0
    assert capsys.readouterr().out.startswith("1 records were there and are gone")

    left = fetch(root, tmp_path / "left")
    assert traces(made, image)
    assert not traces(left, image)
    assert not traces(left, image_id)
    assert {name.split("/")[1] for name in traces(left, record)} == {"rejects-ingest"}
    # The image is of this one record, so that it is the same to forget either.
    assert bytes_of(left) == undisturbed
    assert (left / "README.md").read_bytes() != (made / "README.md").read_bytes()
    assert not [finding for finding in audit(open_corpus(root)[1]) if finding.faults]

    _, corpus = open_corpus(root)
    others = {shard["file"] for shard in corpus.published_shards() if shard["part"] != part}
    place = on_store(root)[1].partition("/")[2]
    written = {name.removeprefix(f"{place}/") for name in store.writes()}
    assert any(name.endswith(f"{part}.parquet") for name in written)
    for name in written:
        top, _, rest = name.partition("/")
        if top == "tables":
            # The selection and the duplicates of a part follow from the whole corpus.
            assert part in name or rest.startswith(("duplicates/", "selection/")), name
        if top == "shards":  # what waits there lies in a folder of its part
            assert part in name or name.rpartition("/")[2] not in others, name


KILL_AFTER = """
import os, signal, sys
from s3fs import S3FileSystem
left, ask = int(sys.argv.pop(1)), S3FileSystem._call_s3
async def dying_ask(self, method, *arguments, **more):
    global left
    answer = await ask(self, method, *arguments, **more)
    if method in ("put_object", "delete_object", "delete_objects"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return answer
S3FileSystem._call_s3 = dying_ask
from jobs.cli import call
sys.exit(call(sys.argv[1:]))
"""


# The lease is the first write; what follows: the marker, the list, the manifest, its tars, each
# table, the lease again, and then the run that fills the corpus.
@pytest.mark.e2e
@pytest.mark.parametrize(
    "writes", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 6, 9, 14))]
)
def test_a_forget_that_is_killed_between_two_writes_is_completed_by_the_next_run(
    root, made, recipe, undisturbed, tmp_path, writes
):
    record, _, image, _ = shipped(made)
    command = [sys.executable, "-c", KILL_AFTER, str(writes), "forget", str(root)]
    done = subprocess.run([*command, "--record", record], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    fill(recipe, root, reporter=QUIET)
    left = fetch(root, tmp_path / "left")
    assert not traces(left, image)
    assert bytes_of(left) == undisturbed
    assert not (root / "forgetting.json").exists()
