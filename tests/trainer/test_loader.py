import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from tests.trainer.conftest import Squares
from tokenizer_cache.manifest import Manifest
from trainer.data.held_out import held_out_rows
from trainer.data.loader import Loader
from trainer.data.packing import NO_TARGET, Row, build_row, unpack
from trainer.settings import LoaderSettings, LossSettings, MixSettings, TrainSettings

SETTINGS = TrainSettings(seq_len=96, caption_max_tokens=16)
ONLY_IMAGES = MixSettings(text=0, image=1, mixed=0)


def loader(squares: Squares, **changes: object) -> Loader:
    return Loader(SETTINGS.model_copy(update=changes), squares.manifest)


def tokens(rows: list[Row]) -> list[list[int]]:
    return [row.tokens.tolist() for row in rows]


def test_the_same_seed_gives_the_same_rows_and_another_gives_others(squares: Squares) -> None:
    rows = tokens(loader(squares).next_rows(20))
    assert tokens(loader(squares).next_rows(20)) == rows
    assert tokens(loader(squares, seed=1).next_rows(20)) != rows


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 50), max_size=3),
    st.integers(1, 3),
    st.sampled_from(["tokens", "samples"]),
    st.none() | st.just(1),
)
def test_a_resumed_loader_gives_the_rows_of_an_undisturbed_one(
    squares: Squares, before: list[int], num_threads: int, unit: str, shuffle_shards: int | None
) -> None:
    mix = MixSettings(unit=unit)
    undisturbed = loader(squares, mix=mix, loader=LoaderSettings(shuffle_shards=shuffle_shards))
    for num_rows in before:
        undisturbed.next_rows(num_rows)
    other = LoaderSettings(shuffle_shards=shuffle_shards, num_threads=num_threads)
    resumed = loader(squares, mix=mix, loader=other)
    resumed.load_state_dict(json.loads(json.dumps(undisturbed.state_dict())))
    assert tokens(resumed.next_rows(20)) == tokens(undisturbed.next_rows(20))
    assert resumed.achieved_shares() == undisturbed.achieved_shares()


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 4))
def test_ranks_share_out_the_rows_that_one_alone_would_give_also_after_their_number_changes(
    squares: Squares, num_ranks: int, per_rank: int, num_steps: int
) -> None:
    alone = loader(squares)
    ranks = [
        Loader(SETTINGS, squares.manifest, rank=rank, num_ranks=num_ranks)
        for rank in range(num_ranks)
    ]
    for _ in range(num_steps):
        rows = tokens(alone.next_rows(num_ranks * per_rank))
        for rank, each in enumerate(ranks):
            assert tokens(each.next_rows(num_ranks * per_rank)) == rows[rank::num_ranks]
    assert all(each.state_dict() == alone.state_dict() for each in ranks)
    later = loader(squares)
    later.load_state_dict(ranks[-1].state_dict())
    assert tokens(later.next_rows(7)) == tokens(alone.next_rows(7))


def test_the_state_is_a_few_integers_however_far_the_training_is(squares: Squares) -> None:
    rows = loader(squares)
    rows.next_rows(700)
    state = rows.state_dict()
    assert set(state) == {"window", "row", "streams"}
    numbers = [state["window"], state["row"], *(
        number for cursor in state["streams"].values() for number in cursor.values()
    )]  # fmt: skip
    assert len(numbers) == 2 + 3 * 4
    assert all(type(number) is int for number in numbers)


@pytest.mark.parametrize("unit", ["tokens", "samples"])
def test_the_mix_is_kept_in_its_unit_and_told_in_both(squares: Squares, unit: str) -> None:
    rows = loader(squares, mix=MixSettings(unit=unit))
    rows.next_rows(400)
    achieved = rows.achieved_shares()
    for stream, share in rows.wanted_shares().items():
        assert achieved[unit][stream] == pytest.approx(share, abs=0.005)
    assert achieved["tokens"] != achieved["samples"]


@pytest.mark.parametrize("unit", ["tokens", "samples"])
def test_the_mix_is_kept_in_every_stretch_of_10_000_samples(squares: Squares, unit: str) -> None:
    rows = loader(squares, mix=MixSettings(unit=unit))
    totals = [{"tokens": np.zeros(3), "samples": np.zeros(3)}]
    while totals[-1]["samples"].sum() < 14_000:
        rows.next_rows(16)
        given = rows.given()
        totals.append(
            {
                name: np.array([getattr(cursor, f"num_{name}") for cursor in given.values()])
                for name in ("tokens", "samples")
            }
        )
    wanted = np.array(list(rows.wanted_shares().values()))
    ends = np.array([total["samples"].sum() for total in totals])
    for start in range(0, len(totals), 3):
        end = int(np.searchsorted(ends, ends[start] + 10_000))
        if end < len(totals):
            given = totals[end][unit] - totals[start][unit]
            assert np.abs(given / given.sum() - wanted).max() < 0.005


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.integers(64, 200), st.floats(0, 1))
def test_a_row_numbers_its_documents_as_if_each_stood_alone(
    squares: Squares, seed: int, seq_len: int, image_to_text: float
) -> None:
    tasks = TrainSettings.model_validate({"image_to_text": image_to_text}).tasks
    loaded = loader(squares, seed=seed, seq_len=seq_len, tasks=tasks)
    pad = squares.manifest.vocabulary.special("<pad>")
    for row in loaded.next_rows(16):
        rebuilt = build_row(unpack(row), seq_len=seq_len, pad=pad)
        for column in ("tokens", "targets", "documents", "positions", "weights"):
            np.testing.assert_array_equal(getattr(row, column), getattr(rebuilt, column))


def test_a_share_of_the_image_documents_loses_its_text(squares: Squares) -> None:
    rows = loader(squares, mix=ONLY_IMAGES, condition_dropout=0.25)
    vocabulary = squares.manifest.vocabulary
    documents = [each for row in rows.next_rows(400) for each in unpack(row)]
    empty = [vocabulary.special("<txt>"), vocabulary.special("</txt>"), vocabulary.special("<img>")]
    share = np.mean([document[:3] == empty for document in documents])
    assert share == pytest.approx(0.25, abs=0.05)


def test_loss_weights_stand_beside_the_tokens_that_they_are_for(squares: Squares) -> None:
    weighted = LossSettings(text=0.5, image=2, condition=0.5)
    loaded = loader(squares, mix=ONLY_IMAGES, loss=weighted, condition_dropout=0.0)
    image, text = squares.manifest.vocabulary.image, squares.manifest.vocabulary.text
    for row in loaded.next_rows(20):
        is_code = (row.targets >= image.start) & (row.targets < image.stop)
        is_text = (row.targets >= text.start) & (row.targets < text.stop)
        assert is_code.any()
        assert is_text.any()
        assert (row.weights[is_code] == 2).all()
        assert (row.weights[is_text] == 0.25).all()
        assert (row.weights[row.targets == NO_TARGET] == 0).all()
        assert (row.weights[row.targets == squares.manifest.vocabulary.special("<eos>")] == 1).all()


def test_a_stream_without_samples_is_left_out_of_the_mix(squares: Squares) -> None:
    shards = tuple(shard for shard in squares.manifest.shards if shard.stream != "text")
    rows = Loader(SETTINGS, replace(squares.manifest, shards=shards))
    assert rows.streams == ("image", "mixed")
    assert rows.wanted_shares() == pytest.approx({"image": 2 / 3, "mixed": 1 / 3})


def test_held_out_rows_are_the_same_each_time_and_keep_their_text(squares: Squares) -> None:
    rows = held_out_rows(SETTINGS, squares.manifest, "image", 5)
    assert tokens(rows) == tokens(held_out_rows(SETTINGS, squares.manifest, "image", 5))
    assert len(rows) == 5
    begin = squares.manifest.vocabulary.special("<img>")
    assert all(document.index(begin) > 2 for row in rows for document in unpack(row))


def test_all_held_out_samples_are_in_rows_where_there_are_fewer_than_asked_for(
    squares: Squares,
) -> None:
    rows = held_out_rows(SETTINGS, squares.manifest, "mixed", 1000)
    begin = squares.manifest.vocabulary.special("<img>")
    assert sum(row.tokens.tolist().count(begin) for row in rows) == 2 * 32


def test_what_fits_no_row_is_left_out_with_a_count_and_a_warning(
    squares: Squares, caplog: pytest.LogCaptureFixture
) -> None:
    rows = loader(squares, mix=ONLY_IMAGES, seq_len=30)
    rows.next_rows(100)
    assert rows.given()["image"].num_samples > 90
    assert rows.left_out()["image"] > 10
    (warned,) = [record.message for record in caplog.records]
    assert "longer than train.seq_len = 30 tokens" in warned
    resumed = loader(squares, mix=ONLY_IMAGES, seq_len=30)
    resumed.load_state_dict(rows.state_dict())
    assert resumed.left_out() == rows.left_out()
    assert tokens(resumed.next_rows(9)) == tokens(rows.next_rows(9))


def test_a_stream_of_which_nothing_fits_a_row_is_named(squares: Squares) -> None:
    with pytest.raises(UserError, match="no sample of the stream image fits a row"):
        loader(squares, mix=ONLY_IMAGES, seq_len=18).next_rows(1)


@pytest.fixture
def damaged(squares: Squares, tmp_path: Path) -> Manifest:
    """The squares with one sample's codes flipped in `image-000000.tar`."""
    shutil.copytree(squares.shards, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "image-000000.tar"
    content = bytearray(path.read_bytes())
    content[512 + 128] ^= 1  # the first code, after the tar's header and numpy's
    path.write_bytes(content)
    return replace(squares.manifest, folder=tmp_path)


def test_a_bad_shard_is_named(damaged: Manifest) -> None:
    with pytest.raises(UserError, match=r"image-000000.tar: 32 bytes from 640 on are not those"):
        Loader(SETTINGS, damaged).next_rows(300)


def test_a_skipped_bad_sample_is_counted_and_leaves_all_others_in_their_place(
    squares: Squares, damaged: Manifest
) -> None:
    skips = SETTINGS.model_copy(update={"loader": LoaderSettings(bad_shards="skip")})
    rows, whole = Loader(skips, damaged), loader(squares).next_rows(300)
    differ = 0
    for row, other in zip(rows.next_rows(300), whole, strict=True):
        lost = row.tokens != other.tokens
        differ += len(np.unique(other.documents[lost]))
        assert (row.documents[lost] == 0).all()
        assert (row.targets[lost] == NO_TARGET).all()
        assert (row.weights[lost] == 0).all()
    (counted,) = rows.num_bad.values()
    assert counted >= differ > 0  # rows ahead of those given may have more


def test_a_missing_shard_is_named(squares: Squares, tmp_path: Path) -> None:
    shutil.copytree(squares.shards, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mixed-000001.tar").unlink()
    with pytest.raises(UserError, match=r"mixed-000001\.tar"):
        Loader(SETTINGS, replace(squares.manifest, folder=tmp_path)).next_rows(300)
