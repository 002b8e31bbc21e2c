"""`ingest.images: reference` over a whole corpus: a folder, a tar and a Parquet file."""

import io
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.recipe import load_recipe
from jobs.run import open_corpus
from pipeline.engine.fingerprint import hash_bytes
from pipeline.engine.parts import read_parts
from pipeline.errors import FAILED, UserError
from pipeline.sources.shapes import draw
from tests.jobs.corpora import SMALL_MODELS, faults, run

RECIPE = (
    SMALL_MODELS
    + """
name: referenced
sources:
  - {kind: folder, path: pictures}
  - {kind: webdataset, path: tars}
  - {kind: huggingface, path: rows}
ingest: {rows_per_part: 6, validation_share: 0.2, images: reference}
run: {num_workers: 0}
"""
)


def picture(number):
    image, caption = draw(number, size=32, seed=3)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue(), caption


def write_sources(folder):
    """Twelve pictures in a folder, twelve in a tar and twelve in a Parquet file, all different."""
    for name in ("pictures", "tars", "rows"):
        (folder / name).mkdir(parents=True)
    for number in range(12):
        content, caption = picture(number)
        (folder / "pictures" / f"{number:02}.png").write_bytes(content)
        (folder / "pictures" / f"{number:02}.txt").write_text(caption)
    with tarfile.open(folder / "tars" / "00000.tar", "w") as tar:
        for number in range(12, 24):
            content, caption = picture(number)
            for kind, member in (("png", content), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{number}.{kind}")
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
    rows = [picture(number) for number in range(24, 36)]
    columns = {"image": [content for content, _ in rows], "text": [text for _, text in rows]}
    pq.write_table(pa.table(columns), folder / "rows" / "rows.parquet", row_group_size=5)


@pytest.fixture
def recipe(tmp_path):
    write_sources(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with sources, their recipe and their corpus, which tests leave as they are."""
    folder = tmp_path_factory.mktemp("filled")
    write_sources(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    run(load_recipe(folder / "recipe.yaml"), folder / "corpus")
    return folder


def shards_of(root):
    return {
        path.relative_to(root).as_posix(): hash_bytes(path.read_bytes())
        for path in (root / "shards").rglob("*.tar")
    }


def test_shards_are_those_of_copied_images_and_no_table_holds_a_picture(filled, tmp_path):
    run(load_recipe(filled / "recipe.yaml", ["ingest.images=copy"]), tmp_path / "copied")
    _, referenced = open_corpus(filled / "corpus")
    _, copied = open_corpus(tmp_path / "copied")
    count = "SELECT count(image), count(image_ref), count(DISTINCT source) FROM records"
    assert referenced.query(count).fetchall() == [(0, 36, 3)]
    assert copied.query(count).fetchall() == [(36, 0, 3)]
    contents = [picture(number)[0] for number in range(36)]
    for path in (filled / "corpus" / "tables").rglob("*.parquet"):
        table = pq.read_table(path)
        for name in table.column_names:
            if pa.types.is_binary(table[name].type):
                assert not set(contents).intersection(table[name].to_pylist())
    shards = shards_of(filled / "corpus")
    assert shards
    assert shards == shards_of(tmp_path / "copied")
    assert not faults(filled / "corpus")


def test_a_picture_that_is_not_what_was_ingested_is_an_error_and_no_record_is_rejected(
    recipe, tmp_path
):
    """The source changes while a run is under way: after its parts have been listed."""
    root, loaded = tmp_path / "corpus", load_recipe(recipe)
    run(loaded, root, until="ingest")
    picture_file = tmp_path / "pictures" / "03.png"
    before = picture_file.read_bytes()

    def said():
        with pytest.raises(UserError) as error:
            run(loaded, root, parts=read_parts(root))
        assert error.value.exit_code == FAILED
        text = str(error.value)
        assert f"the referenced image {picture_file} cannot be used: " in text
        assert "run `anymix run` again to take the change in" in text
        return text

    picture_file.write_bytes(picture(99)[0])
    assert "it is not the image that was ingested" in said()
    picture_file.unlink()
    assert "No such file" in said()
    picture_file.write_bytes(before)
    run(loaded, root)
    _, corpus = open_corpus(root)
    assert not faults(root)
    assert corpus.query("SELECT count(*) FROM records").fetchall() == [(36,)]
    assert corpus.query(
        "SELECT count(*) FROM rejects WHERE reason LIKE '%quarantined'"
    ).fetchall() == [(0,)]


@pytest.fixture
def changed(filled, tmp_path):
    """Three pictures that are in the sources of `filled` now, in place of others or beside them."""
    shutil.copytree(filled, tmp_path / "before")
    others = [picture(number)[0] for number in (97, 98, 99)]
    (filled / "pictures" / "03.png").write_bytes(others[0])
    with tarfile.open(filled / "tars" / "00000.tar", "a") as tar:
        for kind, member in (("png", others[1]), ("txt", b"one more")):
            info = tarfile.TarInfo(f"99.{kind}")
            info.size = len(member)
            tar.addfile(info, io.BytesIO(member))
    path = filled / "rows" / "rows.parquet"
    rows = pq.read_table(path).to_pydict()
    rows["image"][3] = others[2]
    pq.write_table(pa.table(rows), path)
    yield others
    for name in ("pictures", "tars", "rows"):
        shutil.rmtree(filled / name)
        shutil.copytree(tmp_path / "before" / name, filled / name)


def test_a_run_takes_changed_files_in(filled, changed, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(filled / "corpus", root)
    run(load_recipe(filled / "recipe.yaml"), root)
    _, corpus = open_corpus(root)
    images = {row for (row,) in corpus.query("SELECT image_id FROM records").fetchall()}
    assert images.issuperset(map(hash_bytes, changed))
    assert not faults(root)
    assert corpus.query("SELECT count(*) FROM tokens").fetchall() == [(len(images),)]


def test_sources_that_have_moved_are_referenced_where_they_lie_now(recipe, tmp_path):
    root = tmp_path / "corpus"
    run(load_recipe(recipe), root, until="ingest")
    for name in ("pictures", "tars", "rows"):
        (tmp_path / name).rename(tmp_path / f"moved-{name}")
    recipe.write_text(RECIPE.replace("path: ", "path: moved-"))
    run(load_recipe(recipe), root)
    _, corpus = open_corpus(root)
    refs = [ref for (ref,) in corpus.query("SELECT image_ref FROM records").fetchall()]
    assert sum("/moved-" in ref for ref in refs) == 36
    assert not faults(root)


def test_a_lost_picture_is_no_other_records_fault(tmp_path):
    """More pictures than one batch: the last one of the first batch is in hand when it is lost."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(70):
        content, caption = picture(number)
        (folder / f"{number:02}.png").write_bytes(content)
        (folder / f"{number:02}.txt").write_text(caption)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    sources = f"sources=[{{kind: folder, path: {folder}}}]"
    recipe = load_recipe(path, [sources, "ingest.rows_per_part=1000"])
    root = tmp_path / "corpus"
    run(recipe, root, until="score")
    lost = folder / "69.png"
    before = lost.read_bytes()
    lost.unlink()
    with pytest.raises(UserError, match="could not do part") as error:
        run(recipe, root, parts=read_parts(root))
    assert f"the referenced image {lost} cannot be used" in str(error.value)
    lost.write_bytes(before)
    run(recipe, root)
    _, corpus = open_corpus(root)
    quarantined = "SELECT record_id FROM rejects WHERE reason LIKE '%-quarantined'"
    assert corpus.query(quarantined).fetchall() == []
    count = "SELECT count(DISTINCT image_id) FROM {}"
    assert (
        corpus.query(count.format("tokens")).fetchall()
        == corpus.query(count.format("records")).fetchall()
    )
