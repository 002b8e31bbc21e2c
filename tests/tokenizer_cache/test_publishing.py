"""Staged shards become numbered ones and their manifest, wherever that is killed."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import wids
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.corpus import PartFiles
from pipeline.engine.tables import read_table, write_table
from pipeline.engine.token_schemas import SAMPLES
from pipeline.errors import UserError
from tests.tokenizer_cache.corpus import Selected, shard_work, text_models, write_part
from tokenizer_cache import publishing
from tokenizer_cache.manifest import Manifest, find_manifest, open_manifest
from tokenizer_cache.publishing import (
    allot_names,
    discard,
    finish_publishing,
    publish,
    unwritten,
    withdraw,
)
from tokenizer_cache.settings import ShardSettings
from tokenizer_cache.shard_reading import read_shard
from tokenizer_cache.shards import ShardWorker
from tokenizer_cache.vocabulary import TokenizerDescription, Vocabulary, build_vocabulary

Parts = Mapping[str, Sequence[Selected]]

shards = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.sampled_from(["image-000000.tar", "image-000001.tar", "text-validation-000000.tar"]),
    ),
    unique=True,
)


def vocabulary_of(weights: str) -> Vocabulary:
    return build_vocabulary(
        TokenizerDescription(modality="text", num_tokens=256, fingerprint="bpe"),
        TokenizerDescription(modality="image", num_tokens=16, fingerprint=weights, grid=(2, 2)),
    )


def images(part: str, *numbers: int) -> list[Selected]:
    return [
        Selected(record_id=f"{part}{n}", stream="image", caption=f"{part} {n}") for n in numbers
    ]


def stage(root: Path, parts: Parts, *, run: str, max_samples: int = 100) -> list[Path]:
    """Let workers write the shards of parts and commit what they say of them."""
    worker, samples = ShardWorker(ShardSettings(max_samples=max_samples), text_models()), []
    for part, selected in parts.items():
        work = shard_work(root, write_part(root, part, selected), part, run)
        samples.append(root / "samples" / run / f"{part}.parquet")
        write_table(samples[-1], worker(work).rows, SAMPLES)
    return samples


def write_shards(root: Path, parts: Parts, *, run: str = "run", max_samples: int = 100) -> Manifest:
    """Write and publish the shards of parts as a run does that has all of them to do."""
    samples = stage(root, parts, run=run, max_samples=max_samples)
    publish(root / "shards", samples, vocabulary_of("vq"), state=run)
    return open_manifest(root / "shards")


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def holds(manifest: Manifest) -> None:
    """Each shard that it names is there, and has as many samples as it says."""
    for shard in manifest.shards:
        assert len(list(read_shard(manifest.folder / shard.file))) == shard.num_samples
        assert (manifest.folder / shard.file.replace(".tar", ".index")).exists()


def test_stock_wids_takes_any_sample_by_its_number(tmp_path: Path) -> None:
    parts = {part: images(part, 0, 1, 2) for part in "ab"}
    folder = write_shards(tmp_path, parts).folder
    read = wids.ShardListDataset(str(folder / "wids-image.json"), cache_dir=str(tmp_path / "own"))
    assert len(read) == 6
    samples = [read[number] for number in (4, 0, 5)]
    assert [sample["__key__"] for sample in samples] == ["b1", "a0", "b2"]
    assert samples[0][".codes.npy"].tolist() == [[1, 2], [3, 4]]
    assert samples[0][".json"]["captions"][0]["text"] == "b 1"
    withdraw(folder, {"a": "run"})
    assert len(wids.ShardListDataset(str(folder / "wids-image.json"))) == 3
    withdraw(folder, {"b": "run"})
    assert not list(folder.glob("wids-*"))


@given(shards, shards)
def test_numbers_are_dense_and_a_shard_keeps_its_own_where_that_leaves_no_gap(
    before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> None:
    previous = allot_names(before, {})
    names = allot_names(after, previous)
    assert allot_names(after, names) == names
    assert set(names) == set(after)
    for kind in ("image", "text-validation"):
        given_out = [names[each] for each in after if each[1].startswith(kind)]
        assert sorted(given_out) == [f"{kind}-{n:06}.tar" for n in range(len(given_out))]
        for each in after:
            if each[1].startswith(kind) and previous.get(each) in given_out:
                assert names[each] == previous[each]


def test_a_new_part_moves_no_other() -> None:
    name = "image-000000.tar"
    previous = allot_names([("a", name), ("b", name)], {})
    wanted = [("0", name), ("a", name), ("b", name)]
    assert allot_names(wanted, previous) == {**previous, ("0", name): "image-000002.tar"}


def test_the_last_shard_moves_into_the_gap_of_a_part_that_has_gone(tmp_path: Path) -> None:
    parts = {part: images(part, 0) for part in "abc"}
    first = write_shards(tmp_path, parts)
    last = files_in(first.folder)["image-000002.tar"]
    samples = [tmp_path / "samples/run" / f"{part}.parquet" for part in "bc"]
    publish(first.folder, samples, vocabulary_of("vq"), state="without a")
    second = open_manifest(first.folder)
    assert [(each.part, each.file) for each in second.shards] == [
        ("c", "image-000000.tar"),
        ("b", "image-000001.tar"),
    ]
    assert files_in(first.folder)["image-000000.tar"] == last
    holds(second)


def test_a_part_of_several_shards_grows_and_shrinks_beside_others(tmp_path: Path) -> None:
    def held(manifest: Manifest) -> list[tuple[str, int]]:
        return [(each.part, each.num_samples) for each in manifest.shards]

    parts = {"a": images("a", 0, 1, 2), "b": images("b", 0, 1)}
    first = write_shards(tmp_path, parts, run="1", max_samples=2)
    assert held(first) == [("a", 2), ("a", 1), ("b", 2)]
    parts = {"a": images("a", 0, 1), "b": images("b", 0, 1, 2, 3, 4)}
    second = write_shards(tmp_path, parts, run="2", max_samples=2)
    assert held(second) == [("a", 2), ("b", 2), ("b", 2), ("b", 1)]
    for manifest in (first, second):
        assert [each.file for each in manifest.shards] == [
            f"image-{n:06}.tar" for n in range(len(manifest.shards))
        ]
    holds(second)


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


def test_shards_of_before_stay_readable_until_all_parts_are_done(tmp_path: Path) -> None:
    before = write_shards(tmp_path, {"a": images("a", 0)}, run="1")
    files = files_in(before.folder)
    stage(tmp_path, {"a": images("a", 1, 2)}, run="2")
    assert files.items() <= files_in(before.folder).items()
    assert open_manifest(before.folder) == before


def killed_at(number: int, patch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Fail at the given change of the disk; returns whether it came to that."""
    done = 0

    def counting(function: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            nonlocal done
            done += 1
            if done == number:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return counted

    move = publishing.move
    for name in ("commit_json", "remove"):
        patch.setattr(publishing, name, counting(getattr(publishing, name)))
    one = counting(lambda pair: move([pair]))
    patch.setattr(publishing, "move", lambda pairs: [one(pair) for pair in pairs])
    patch.setattr(Path, "unlink", counting(Path.unlink))
    return lambda: done >= number


@pytest.mark.parametrize("forgets", [False, True], ids=["run", "forget"])
def test_a_publication_that_is_killed_anywhere_comes_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    """A part shrinks, one stays and moves into a gap, one goes, one is new."""
    before = {part: images(part, 0, 1, 2) for part in "abc"}
    write_shards(tmp_path, before, run="1", max_samples=1)
    stays = tmp_path / "samples/1/c.parquet"
    changed = {"b": images("b", 0, 5), "d": images("d", 0)}
    samples = [*stage(tmp_path, changed, run="2", max_samples=1), stays]
    start = tmp_path / "start"
    shutil.copytree(tmp_path / "shards", start)

    def run(folder: Path) -> None:
        finish_publishing(folder)
        manifest = find_manifest(folder)
        if manifest is None or manifest.samples != "2":
            publish(folder, samples, vocabulary_of("vq"), state="2")

    shutil.copytree(start, tmp_path / "whole")
    run(tmp_path / "whole")
    whole = files_in(tmp_path / "whole")
    ended = open_manifest(tmp_path / "whole")
    holds(ended)
    first = {shard.file for shard in open_manifest(start).shards if shard.part == "c"}
    assert first != {shard.file for shard in ended.shards if shard.part == "c"}
    for number in range(1, 200):
        folder = tmp_path / f"killed-{number}"
        shutil.copytree(start, folder)
        with monkeypatch.context() as patch:
            was_killed = killed_at(number, patch)
            with suppress(KeyboardInterrupt):
                run(folder)
        if not was_killed():
            break
        holds(open_manifest(folder))
        if forgets:
            discard(folder, {"c"})
            left = open_manifest(folder)
            holds(left)
            assert "c" not in {shard.part for shard in left.shards}
            assert not list(folder.rglob("staged"))
            named = [each.file for each in left.shards]
            assert sorted(path.name for path in folder.glob("*.tar")) == named
        else:
            run(folder)
            assert files_in(folder) == whole
    assert number > 20


def test_what_is_neither_published_nor_waits_is_unwritten(tmp_path: Path) -> None:
    stage(tmp_path, {"a": images("a", 0), "b": []}, run="1")
    folder, table = tmp_path / "shards", PartFiles(tmp_path / "samples")
    for part in "ab":
        table.place(part, "1")
    assert not unwritten(folder, table)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        path.unlink()
        assert unwritten(folder, table) == {"a"}
        path.write_bytes(whole)
    assert not unwritten(folder, table)
    publish(folder, table.values(), vocabulary_of("vq"), state=table.fingerprint())
    assert not unwritten(folder, table)
    table.place("a", "2")
    write_table(table["a"], read_table(tmp_path / "samples/1/a.parquet"), SAMPLES)
    assert unwritten(folder, table) == {"a"}


def test_a_part_that_is_withdrawn_is_named_no_more_and_keeps_its_numbers(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": images("a", 0, 1), "b": images("b", 0)}, max_samples=1)
    grown = {"a": images("a", 0, 1), "b": images("b", 0, 1, 2)}
    manifest = write_shards(tmp_path, grown, run="2", max_samples=1)
    withdraw(manifest.folder, {"a": "1", "b": "1", "c": "2"})
    assert open_manifest(manifest.folder) == manifest
    withdraw(manifest.folder, {"b": "2"})
    withdraw(manifest.folder, {"a": "2"})
    left = open_manifest(manifest.folder)
    assert not left.shards
    assert not left.samples
    backwards = dict(reversed(grown.items()))
    assert write_shards(tmp_path, backwards, run="2", max_samples=1) == manifest


def test_a_folder_of_an_earlier_version_is_forgotten_as_a_whole(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, {"a": images("a", 0)}).folder
    (folder / "manifest.json").write_text('{"selection": "", "shards": [{"file": "a.tar"}]}')
    discard(folder, {"b"})
    assert not folder.exists()


def test_shards_of_another_vocabulary_are_refused_by_name(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, {"a": [Selected(record_id="1", stream="image")]})
    known, other = manifest.vocabulary.fingerprint, vocabulary_of("other vq").fingerprint
    assert open_manifest(tmp_path / "shards", known) == manifest
    with pytest.raises(UserError, match=f"{known}.*{other}"):
        open_manifest(tmp_path / "shards", other)


def test_a_folder_without_manifest_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="anymix run"):
        open_manifest(tmp_path)
