from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import UserError
from tests.trainer.conftest import Squares
from tokenizer_cache.text import load_text
from trainer.documents import Encoder
from trainer.loader import Loader, held_out_rows
from trainer.packing import Row, unpack
from trainer.settings import MixSettings, TrainSettings

SETTINGS = TrainSettings(seq_len=96, caption_max_tokens=16)


def encoder(squares: Squares, settings: TrainSettings = SETTINGS) -> Encoder:
    return Encoder(
        vocabulary=squares.manifest.vocabulary,
        text=load_text(squares.models["text"]),
        seq_len=settings.seq_len,
        caption_max_tokens=settings.caption_max_tokens,
    )


def loader(squares: Squares, settings: TrainSettings = SETTINGS) -> Loader:
    return Loader(settings, squares.manifest, encoder(squares, settings))


def tokens(rows: list[Row]) -> list[list[int]]:
    return [row.tokens.tolist() for row in rows]


def test_the_same_seed_gives_the_same_rows_and_another_gives_others(squares: Squares) -> None:
    rows = tokens(loader(squares).next_rows(20))
    assert tokens(loader(squares).next_rows(20)) == rows
    other = SETTINGS.model_copy(update={"seed": 1})
    assert tokens(loader(squares, other).next_rows(20)) != rows


@pytest.mark.parametrize("num_before", [1, 17, 60])
def test_a_resumed_loader_gives_the_rows_of_an_undisturbed_one(
    squares: Squares, num_before: int
) -> None:
    undisturbed = loader(squares)
    undisturbed.next_rows(num_before)
    resumed = loader(squares)
    resumed.load_state_dict(undisturbed.state_dict())
    assert tokens(resumed.next_rows(60)) == tokens(undisturbed.next_rows(60))


def test_the_mix_is_kept_in_tokens(squares: Squares) -> None:
    rows = loader(squares)
    rows.next_rows(400)
    for stream, share in rows.wanted_shares().items():
        assert rows.achieved_shares()[stream] == pytest.approx(share, abs=0.005)


def test_an_epoch_holds_every_sample_once(squares: Squares) -> None:
    settings = SETTINGS.model_copy(
        update={"mix": MixSettings(text=0, image=0, mixed=1), "condition_dropout": 0.0}
    )
    rows = loader(squares, settings)
    documents: list[list[int]] = []
    while rows.epochs()["mixed"] == 0:
        documents += [each for row in rows.next_rows(1) for each in unpack(row)]
    seen = Counter(map(tuple, documents))
    assert len(seen) == 16  # the squares of two shards of 48 and 24 samples repeat after 16
    assert sum(seen.values()) <= 72
    assert max(seen.values()) <= 5


def test_a_share_of_the_image_documents_loses_its_text(squares: Squares) -> None:
    settings = SETTINGS.model_copy(
        update={"mix": MixSettings(text=0, image=1, mixed=0), "condition_dropout": 0.25}
    )
    vocabulary = squares.manifest.vocabulary
    documents = [each for row in loader(squares, settings).next_rows(400) for each in unpack(row)]
    empty = [vocabulary.special("<txt>"), vocabulary.special("</txt>"), vocabulary.special("<img>")]
    share = np.mean([document[:3] == empty for document in documents])
    assert share == pytest.approx(0.25, abs=0.05)


def test_a_stream_without_samples_is_left_out_of_the_mix(squares: Squares) -> None:
    shards = tuple(shard for shard in squares.manifest.shards if shard.stream != "text")
    manifest = replace(squares.manifest, shards=shards)
    rows = Loader(SETTINGS, manifest, encoder(squares))
    assert rows.streams == ("image", "mixed")
    assert rows.wanted_shares() == pytest.approx({"image": 2 / 3, "mixed": 1 / 3})


def test_held_out_rows_are_the_same_each_time_and_keep_their_text(squares: Squares) -> None:
    rows = held_out_rows(squares.manifest, encoder(squares), "image", 5)
    assert tokens(rows) == tokens(held_out_rows(squares.manifest, encoder(squares), "image", 5))
    assert len(rows) == 5
    begin = squares.manifest.vocabulary.special("<img>")
    assert all(document.index(begin) > 2 for row in rows for document in unpack(row))


def test_a_picture_that_fits_no_row_is_named(squares: Squares) -> None:
    short = SETTINGS.model_copy(update={"seq_len": 32})
    with pytest.raises(UserError, match=r"sample (image|mixed)-train-\S+ .* has \d+ tokens"):
        loader(squares, short).next_rows(100)


def test_a_long_text_is_cut_into_pieces_that_make_it_up(squares: Squares) -> None:
    settings = SETTINGS.model_copy(
        update={"mix": MixSettings(text=1, image=0, mixed=0), "seq_len": 16}
    )
    vocabulary = squares.manifest.vocabulary
    pieces = encoder(squares, settings)
    rows = held_out_rows(squares.manifest, pieces, "text", 1000)
    ids = [token for row in rows for document in unpack(row) for token in document]
    num_texts = squares.manifest.num_samples("text", "validation")
    one = len(pieces.text_segment("Squares have four sides. All of them are equally long.")) + 1
    assert len(ids) == num_texts * one
    assert ids.count(vocabulary.special("<eos>")) == num_texts
