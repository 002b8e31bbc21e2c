from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import UserError
from tests.trainer.conftest import Squares, square
from tokenizer_cache.code_order import read_in
from tokenizer_cache.shard_reading import Caption, ImageSegment, Sample, Segment, TextSegment
from tokenizer_cache.text import load_text
from tokenizer_cache.vq.description import describe_vq
from trainer.documents import Encoder, drawn, fixed

TEXT, CODES = square(0)


@pytest.fixture
def encoder(squares: Squares) -> Encoder:
    return Encoder(
        vocabulary=squares.manifest.vocabulary,
        text=load_text(squares.models["text"]),
        seq_len=96,
        caption_max_tokens=16,
    )


def sample(stream: str, *segments: Segment) -> Sample:
    return Sample(key="key", stream=stream, segments=segments, variants=(), metadata={})


def texts(*each: str) -> TextSegment:
    return TextSegment(captions=tuple(Caption(text=text) for text in each))


def spell(encoder: Encoder, ids: list[int]) -> list[str | int]:
    """Special tokens by name, text as one string, codes as numbers."""
    vocabulary, shown = encoder.vocabulary, []
    run: list[int] = []
    for token in [*ids, -1]:
        if token in range(vocabulary.text.start, vocabulary.text.stop):
            run.append(token - vocabulary.text.start)
            continue
        if run:
            shown.append(encoder.text.decode(run))
            run = []
        if token in range(vocabulary.image.start, vocabulary.image.stop):
            shown.append(token - vocabulary.image.start)
        elif token >= 0:
            shown.append(vocabulary.special_tokens[token])
    return shown


def test_a_picture_follows_its_text_in_raster_order(encoder: Encoder) -> None:
    codes = np.arange(16, dtype=np.uint16).reshape(4, 4) % 8
    (ids,) = encoder.documents(sample("image", texts(TEXT), ImageSegment(codes=codes)), fixed)
    expected = ["<txt>", TEXT, "</txt>", "<img>", *codes.ravel().tolist(), "</img>", "<eos>"]
    assert spell(encoder, ids) == expected


def test_a_picture_is_read_in_the_order_that_the_vocabulary_says(
    encoder: Encoder, squares: Squares
) -> None:
    image = read_in("coarse-first", describe_vq(squares.models["vq"]))
    vocabulary = encoder.vocabulary.extend([image])
    codes = np.array([[0, 4, 1, 4], [4, 4, 4, 4], [2, 4, 3, 4], [4, 4, 4, 4]], np.uint16)
    ids = replace(encoder, vocabulary=vocabulary).image_segment(codes)
    assert spell(encoder, ids) == ["<img>", 0, 1, 2, 3, *[4] * 12, "</img>"]


def test_in_a_mixed_document_each_text_follows_its_picture(encoder: Encoder) -> None:
    segments = (ImageSegment(codes=CODES), texts(TEXT), ImageSegment(codes=CODES), texts("again"))
    (ids,) = encoder.documents(sample("mixed", *segments), fixed)
    words = [word for word in spell(encoder, ids) if isinstance(word, str)]
    first, second = ["<img>", "</img>", "<txt>", TEXT, "</txt>"], ["<img>", "</img>", "<txt>"]
    assert words == [*first, *second, "again", "</txt>", "<eos>"]


def test_a_long_document_is_cut_before_a_picture_or_a_text_of_its_own(encoder: Encoder) -> None:
    picture = ImageSegment(codes=CODES)
    segments = [texts("start"), *(each for _ in range(4) for each in (picture, texts(TEXT)))]
    documents = encoder.documents(sample("mixed", *segments, texts("end")), fixed)
    assert len(documents) > 1
    assert all(len(ids) <= encoder.seq_len for ids in documents)
    shown = [spell(encoder, ids) for ids in documents]
    assert all(words[-1] == "<eos>" for words in shown)
    assert all(words[0] == "<img>" for words in shown[1:])
    words = [word for document in shown for word in document if isinstance(word, str)]
    texts_in_order = [word for word in words if not word.startswith("<")]
    assert texts_in_order == ["start", *[TEXT] * 4, "end"]


def test_every_caption_has_its_turn_and_the_choice_is_repeatable(encoder: Encoder) -> None:
    both = sample("image", texts("one", "two"), ImageSegment(codes=CODES))
    chosen = [
        spell(encoder, encoder.documents(both, drawn(0, epoch, "key"))[0])[1] for epoch in range(20)
    ]
    assert set(chosen) == {"one", "two"}
    again = encoder.documents(both, drawn(0, 3, "key"))
    assert spell(encoder, again[0])[1] == chosen[3]


def test_captions_have_their_turn_by_weight(encoder: Encoder) -> None:
    weighted = (Caption(text="own", weight=0.2), Caption(text="new", weight=0.8))
    segments = (TextSegment(captions=weighted), ImageSegment(codes=CODES))
    counts = Counter(
        spell(encoder, encoder.documents(sample("image", *segments), drawn(0, epoch, "k"))[0])[1]
        for epoch in range(500)
    )
    assert 60 < counts["own"] < 140
    assert counts["own"] + counts["new"] == 500


def test_a_dropped_condition_leaves_an_empty_text(encoder: Encoder) -> None:
    one = sample("image", texts(TEXT), ImageSegment(codes=CODES))
    (ids,) = encoder.documents(one, lambda _: 0.95, condition_dropout=0.1)
    assert spell(encoder, ids)[:3] == ["<txt>", "</txt>", "<img>"]
    mixed = sample("mixed", ImageSegment(codes=CODES), texts(TEXT))
    (ids,) = encoder.documents(mixed, lambda _: 0.95, condition_dropout=0.1)
    assert TEXT in spell(encoder, ids)


def test_a_long_caption_is_cut_and_its_picture_is_whole(encoder: Encoder) -> None:
    long = sample("image", texts("square " * 100), ImageSegment(codes=CODES))
    (ids,) = encoder.documents(long, fixed)
    assert len(ids) == 2 + 16 + 2 + 16 + 1


def test_a_picture_on_another_grid_is_refused_by_name(encoder: Encoder) -> None:
    wide = sample("image", texts(TEXT), ImageSegment(codes=np.zeros((4, 5), np.uint16)))
    with pytest.raises(UserError, match=r"sample key has \(4, 5\) codes"):
        encoder.documents(wide, fixed)
