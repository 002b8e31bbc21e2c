from jobs.run import open_corpus
from pipeline.engine.schemas import RECORDS
from pipeline.engine.tables import read_table, write_table
from pipeline.engine.token_schemas import TOKENS
from tests.jobs.corpora import faults, run
from tokenizer_cache.encoding_audit import audit_codes
from tokenizer_cache.manifest import open_manifest
from tokenizer_cache.shard_reading import read_shard


def test_64_images_have_the_codes_that_were_committed(made):
    found = audit_codes(open_corpus(made)[1])
    assert (found.checked, found.faults) == (64, 0)


def test_other_codes_are_a_fault_that_names_image_and_part(corpus, load, fault):
    _, opened = open_corpus(corpus)
    (path, *_) = opened.files("tokens")
    rows = sorted(read_table(path).to_pylist(), key=lambda row: row["image_id"])
    rows[0]["codes"] = bytes(byte ^ 1 for byte in rows[0]["codes"])
    write_table(path, rows, TOKENS)
    found = audit_codes(opened)
    assert found.faults == 1
    assert found.examples[0].startswith(f"image {rows[0]['image_id']} of part {path.stem}: ")
    assert found.examples[0].endswith(" of 64 codes are others")
    for table in ("tokens", "samples"):
        for wrong in (corpus / "tables" / table).rglob(path.name):
            wrong.unlink()
    run(load(), corpus)
    assert not audit_codes(open_corpus(corpus)[1]).faults
    fault(
        "committed codes are not those that the tokenizer gives",
        "`anymix audit`, which encodes 64 images again: exit code 1, the image and its part",
    )


def test_crops_go_from_the_recipe_to_the_shards_and_refit_no_tokenizer(corpus, load):
    before = open_corpus(corpus)[1]
    run(load("tokenize.crops=2"), corpus)
    _, opened = open_corpus(corpus)
    assert opened.models == before.models
    views = "SELECT DISTINCT list_sort(list(view)) FROM tokens GROUP BY part, image_id"
    assert opened.query(views).fetchall() == [([0, 1, 2],)]
    for path in open_manifest(opened.shards).paths("image", "train"):
        for sample in read_shard(path):
            assert sample.segments[1].crops.shape == (2, 8, 8)
    assert not audit_codes(opened).faults
    assert not faults(corpus)


def test_an_image_that_cannot_be_had_is_a_fault(corpus):
    _, opened = open_corpus(corpus)
    (path, *_) = [p for p in opened.files("records") if p.stem.startswith("shapes")]
    gone = {"image": None, "image_ref": str(corpus / "gone.png")}
    write_table(path, [row | gone for row in read_table(path).to_pylist()], RECORDS)
    found = audit_codes(opened)
    assert found.faults > 0
    assert "gone.png cannot be used" in found.examples[0]
