from pathlib import Path

import pytest
import wids
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.tables import write_table
from pipeline.engine.token_schemas import SAMPLES
from pipeline.errors import UserError
from tests.tokenizer_cache.corpus import Selected, shard_work, text_models, write_part
from tokenizer_cache.manifest import (
    Manifest,
    allot_names,
    is_written,
    open_manifest,
    withdraw,
    write_manifest,
)
from tokenizer_cache.settings import ShardSettings
from tokenizer_cache.shards import ShardWorker
from tokenizer_cache.vocabulary import TokenizerDescription, Vocabulary, build_vocabulary

counts = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.dictionaries(st.sampled_from(["image/train", "text/validation"]), st.integers(0, 3)),
)


def vocabulary_of(weights: str) -> Vocabulary:
    return build_vocabulary(
        TokenizerDescription(modality="text", num_tokens=256, fingerprint="bpe"),
        TokenizerDescription(modality="image", num_tokens=16, fingerprint=weights, grid=(2, 2)),
    )


def write_shards(root: Path, parts: dict[str, list[Selected]], *, run: str = "run") -> Manifest:
    """Write the shards of parts as a run does, with all of its parts to do."""
    folder = root / "shards"
    held = {
        part: {f"{each.stream}/{each.split}": 1 for each in selected}
        for part, selected in parts.items()
    }
    previous = open_manifest(folder).names() if (folder / "manifest.json").exists() else {}
    names = allot_names(previous, held)
    withdraw(folder, parts.keys())
    worker, samples = ShardWorker(ShardSettings(), text_models()), []
    for part, selected in parts.items():
        inputs = write_part(root, part, selected)
        output = worker(shard_work(part, inputs, folder, names[part]))
        samples.append(root / "samples" / run / f"{part}.parquet")
        write_table(samples[-1], output.rows, SAMPLES)
    return write_manifest(folder, samples, vocabulary_of("vq"), selection=run)


def test_stock_wids_takes_any_sample_by_its_number(tmp_path: Path) -> None:
    parts = {
        part: [
            Selected(record_id=f"{part}{n}", stream="image", caption=f"{part} {n}")
            for n in range(3)
        ]
        for part in "ab"
    }
    folder = write_shards(tmp_path, parts).folder
    read = wids.ShardListDataset(str(folder / "wids-image.json"), cache_dir=str(tmp_path / "own"))
    assert len(read) == 6
    samples = [read[number] for number in (4, 0, 5)]
    assert [sample["__key__"] for sample in samples] == ["b1", "a0", "b2"]
    assert samples[0][".codes.npy"].tolist() == [[1, 2], [3, 4]]
    assert samples[0][".json"]["captions"][0]["text"] == "b 1"
    withdraw(folder, {"a"})
    assert len(wids.ShardListDataset(str(folder / "wids-image.json"))) == 3
    withdraw(folder, {"b"})
    assert not list(folder.glob("wids-*"))


@given(counts, counts)
def test_numbers_are_dense_and_a_part_keeps_its_own_where_that_leaves_no_gap(
    before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]
) -> None:
    previous = allot_names({}, before)
    names = allot_names(previous, after)
    assert allot_names(names, after) == names
    for key, prefix in (("image/train", "image-"), ("text/validation", "text-validation-")):
        given_out = [held[key] for held in names.values() if key in held]
        assert sorted(given_out) == [f"{prefix}{n:06}.tar" for n in range(len(given_out))]
        for part, held in after.items():
            assert (key in names[part]) == (held.get(key, 0) > 0)
            kept = previous.get(part, {}).get(key)
            if key in names[part] and kept in given_out:
                assert names[part][key] == kept


def test_a_new_part_moves_no_other() -> None:
    previous = allot_names({}, {"a": {"image/train": 1}, "b": {"image/train": 1}})
    held = {part: {"image/train": 1} for part in ("0", "a", "b")}
    assert allot_names(previous, held) == {**previous, "0": {"image/train": "image-000002.tar"}}


def test_the_last_shard_moves_into_the_gap_of_a_part_that_has_gone() -> None:
    held = {part: {"image/train": 1} for part in "abc"}
    previous = allot_names({}, held)
    del held["a"]
    assert allot_names(previous, held) == {
        "b": {"image/train": "image-000001.tar"},
        "c": {"image/train": "image-000000.tar"},
    }


def test_manifest_names_what_lies_in_the_folder_and_the_rest_is_removed(tmp_path: Path) -> None:
    a = [Selected(record_id="1", stream="image"), Selected(record_id="2", stream="text")]
    b = [Selected(record_id="3", stream="image", split="validation")]
    c = [Selected(record_id="4", stream="image")]
    first = write_shards(tmp_path, {"a": a, "b": b, "c": c})
    assert [path.name for path in first.paths("image", "train")] == [
        "image-000000.tar",
        "image-000001.tar",
    ]
    assert first.num_samples("image", "train") == 2
    assert open_manifest(tmp_path / "shards") == first
    write_shards(tmp_path, {"a": a, "b": b})
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {
        "image-000000.index",
        "image-000000.tar",
        "image-validation-000000.index",
        "image-validation-000000.tar",
        "text-000000.index",
        "text-000000.tar",
        "manifest.json",
        "vocabulary.json",
        "wids-image-validation.json",
        "wids-image.json",
        "wids-text.json",
    }


def test_manifest_tells_which_samples_a_part_was_written_with(tmp_path: Path) -> None:
    selected = {name: [Selected(record_id=name, stream="image")] for name in "ab"}
    names = write_shards(tmp_path, selected, run="first").names()
    withdraw(tmp_path / "shards", ["a"])
    left = open_manifest(tmp_path / "shards")
    assert left.contents() == {"b": (names["b"], "first")}
    assert not left.selection
    again = write_shards(tmp_path, selected, run="second")
    assert again.contents() == {part: (names[part], "second") for part in "ab"}
    assert again.selection == "second"


def test_tars_of_another_run_or_damaged_ones_are_not_taken_for_written(tmp_path: Path) -> None:
    selected = {"a": [Selected(record_id="1", stream="image")]}
    names = write_shards(tmp_path, selected, run="first").names()["a"]
    folder, samples = tmp_path / "shards", tmp_path / "samples/first/a.parquet"
    assert is_written(folder, samples, names)
    assert not is_written(folder, samples, {"image/train": "image-000001.tar"})
    for path in (folder / names["image/train"], folder / "image-000000.index"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert not is_written(folder, samples, names)
        path.unlink()
        assert not is_written(folder, samples, names)
        path.write_bytes(whole)


def test_shards_of_another_vocabulary_are_refused_by_name(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, {"a": [Selected(record_id="1", stream="image")]})
    known, other = manifest.vocabulary.fingerprint, vocabulary_of("other vq").fingerprint
    assert open_manifest(tmp_path / "shards", known) == manifest
    with pytest.raises(UserError, match=f"{known}.*{other}"):
        open_manifest(tmp_path / "shards", other)


def test_a_folder_without_manifest_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="anymix run"):
        open_manifest(tmp_path)
