"""A flipped bit or a cut in any kind of committed file is found, or it changes nothing."""

import random

import pytest

from jobs.run import fill, open_corpus
from pipeline.engine.corpus import MODEL_FILE
from pipeline.engine.fingerprint import hash_file
from pipeline.engine.schemas import REJECTS, TABLES
from pipeline.engine.tables import read_table
from pipeline.ledger.audit import audit
from pipeline.ledger.damage import damaged, repair, table_fault


def spoilt(content, random_):
    """The content with a bit flipped, or cut short."""
    place = random_.randrange(len(content))
    if random_.random() < 0.2:
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= 1 << random_.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("table", ["records", "scores", "samples", "tokens", "rejects"])
def test_a_spoilt_table_is_found_or_reads_the_same(made, tmp_path, table):
    _, corpus = open_corpus(made)
    files = corpus.reject_files() if table == "rejects" else corpus.files(table)
    path = max(files, key=lambda file: read_table(file).num_rows)
    schema = REJECTS if table == "rejects" else TABLES[table]
    good, rows, copy = path.read_bytes(), read_table(path), tmp_path / "copy.parquet"
    random_ = random.Random(table)  # noqa: S311 - no secret
    assert table_fault(path, schema) is None
    found = 0
    for _ in range(100):
        copy.write_bytes(spoilt(good, random_))
        if table_fault(copy, schema) is None:
            assert read_table(copy).equals(rows)
        else:
            found += 1
    assert found > 60


def test_a_sound_corpus_has_no_damage(made):
    assert damaged(open_corpus(made)[1]) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_spoilt_model_or_shard_is_found(root, seed):
    random_ = random.Random(seed)  # noqa: S311 - no secret
    _, corpus = open_corpus(root)
    shard = random_.choice(sorted(corpus.shards.glob("*.tar")))
    folder = corpus.models["clip"]
    weights = random_.choice([p for p in sorted(folder.iterdir()) if p.name != MODEL_FILE])
    for path in (shard, weights):
        path.write_bytes(spoilt(path.read_bytes(), random_))
    assert {damage.path for damage in damaged(corpus)} == {shard, folder}


def test_a_missing_file_of_rejects_is_found(root):
    _, corpus = open_corpus(root)
    corpus.reject_files()[0].unlink()
    assert [damage.what for damage in damaged(corpus)] == ["it is missing"]


def test_repair_makes_a_run_do_just_the_damaged_again(root, made, recipe, quiet):
    _, corpus = open_corpus(root)
    shard, scores = min(corpus.shards.glob("*.tar")), corpus.files("scores")[0]
    rejects = next(iter(corpus.rejects["select"].values()))
    for path in (shard, scores, rejects):
        path.write_bytes(path.read_bytes()[:-9])
    found = audit(corpus)
    finding = next(each for each in found if each.check.startswith("every committed file"))
    assert finding.faults == 2
    assert any(scores.name in example for example in finding.examples)
    assert "--repair" in finding.remedy
    repair(corpus)
    assert not scores.exists()
    fill(recipe, root, until=None, reporter=quiet)
    for path in (shard, scores, rejects):
        assert hash_file(path) == hash_file(made / path.relative_to(root))
    assert not [each for each in audit(open_corpus(root)[1]) if each.faults]


def test_a_damaged_model_is_fitted_again(root, recipe, quiet):
    _, corpus = open_corpus(root)
    folder = corpus.models["cuts"]
    before = hash_file(folder / "cuts.json")
    (folder / "cuts.json").write_text("{}")
    assert [damage.path for damage in repair(corpus)] == [folder]
    fill(recipe, root, until=None, reporter=quiet)
    assert hash_file(folder / "cuts.json") == before


def test_a_damaged_file_of_duplicates_is_made_again(root, made, recipe, quiet):
    _, corpus = open_corpus(root)
    path = max(corpus.files("duplicates"), key=lambda file: read_table(file).num_rows)
    path.write_bytes(path.read_bytes()[:-9])
    fill(recipe, root, until=None, repair=True, reporter=quiet)
    assert hash_file(path) == hash_file(made / path.relative_to(root))
    assert not [each for each in audit(open_corpus(root)[1]) if each.faults]


@pytest.mark.parametrize(
    "name",
    [
        "parts.parquet",
        "models/cuts/*/model.json",
        "shards/*/manifest.json",
        "shards/*/vocabulary.json",
        "tables/duplicates/index-*.json",
    ],
)
def test_a_file_without_which_the_corpus_cannot_be_opened_is_made_again(
    root, made, recipe, quiet, name
):
    (path,) = root.glob(name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fill(recipe, root, until=None, repair=True, reporter=quiet)
    assert not [each for each in audit(open_corpus(root)[1]) if each.faults]
    assert hash_file(path) == hash_file(made / path.relative_to(root))
