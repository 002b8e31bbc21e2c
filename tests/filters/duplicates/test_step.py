import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filters.duplicates.corpus import (
    apart,
    duplicates,
    feature_at,
    hash_at,
    keepers,
    write_corpus,
)


def picture(record_id, image_id, **what):
    return {"record_id": record_id, "image_id": image_id, **what}


def text(record_id, caption):
    return {"record_id": record_id, "caption": caption}


EXACT = [
    [picture("c", "image-1"), picture("d", "image-2"), text("t2", "same text")],
    [picture("a", "image-1"), picture("b", "image-1"), text("t1", "same text")],
    [text("t3", "another text"), picture("e", "image-3", caption="same text")],
    [picture("f", "image-4", pixel_hash="image-3")],
]
OF_BYTES = {"b": "a", "c": "a"}
OF_PIXELS = {"f": "e"}
OF_TEXTS = {"t2": "t1"}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, OF_BYTES | OF_PIXELS | OF_TEXTS),
        ({"bytes": False}, OF_BYTES | OF_PIXELS | OF_TEXTS),  # equal bytes are equal pixels
        ({"pixels": False}, OF_BYTES | OF_TEXTS),
        ({"texts": False}, OF_BYTES | OF_PIXELS),
        ({"bytes": False, "pixels": False, "texts": False}, {}),
    ],
)
def test_equal_content_is_found_whatever_the_part(tmp_path, chosen, expected):
    assert keepers(write_corpus(tmp_path, EXACT), **chosen) == expected


def test_a_copy_says_how_it_was_found(tmp_path):
    records = [
        *(picture(f"a{n}", "one", perceptual_hash=hash_at(0)) for n in (1, 2)),
        picture("b", "two", pixel_hash="one", perceptual_hash=hash_at(0)),
        picture("c", "three", perceptual_hash=hash_at(8)),
        picture("d", "four", image_feature=feature_at(90)),
        picture("e", "five", image_feature=feature_at(95)),
    ]
    found = duplicates(write_corpus(tmp_path, [records]), perceptual=0.05, semantic=0.02)
    told = {
        record: (row["duplicate_of"], row["method"], row["threshold"])
        for record, row in found.items()
    }
    assert told == {
        "a2": ("a1", "bytes", 0),
        "b": ("a1", "pixels", 0),
        "c": ("a1", "perceptual", pytest.approx(0.05)),
        "e": ("d", "semantic", pytest.approx(0.02)),
    }
    assert found["c"]["distance"] == pytest.approx(apart(8), abs=1e-3)
    assert found["e"]["distance"] == pytest.approx(apart(5), abs=1e-3)
    assert found["b"]["distance"] == 0


@pytest.mark.parametrize(
    ("better", "worse", "rule"),
    [
        ({"licence": "CC0-1.0"}, {"licence": "CC-BY-4.0", "width": 99}, "licence"),
        ({"licence": "CC-BY-4.0"}, {"licence": "unknown", "width": 99}, "licence"),
        ({"width": 99}, {"clip_score": 0.9}, "resolution"),
        ({"clip_score": 0.3}, {"clip_score": 0.2}, "clip-score"),
        ({"clip_score": -0.3}, {}, "clip-score"),
    ],
)
def test_what_stays_is_decided_by_licence_size_and_caption(tmp_path, better, worse, rule):
    records = [picture("a", "same", **worse), picture("b", "same", **better)]
    inputs = write_corpus(tmp_path, [records])
    found = duplicates(inputs, prefer_licences=["CC0-1.0", "CC-BY-4.0"])
    assert (found["a"]["duplicate_of"], found["a"]["rule"]) == ("b", rule)
    assert len(found) == 1


def test_of_equals_the_smallest_id_stays(tmp_path):
    found = duplicates(write_corpus(tmp_path, [[picture(name, "same") for name in "bca"]]))
    assert {name: (row["duplicate_of"], row["rule"]) for name, row in found.items()} == {
        "b": ("a", "record-id"),
        "c": ("a", "record-id"),
    }


def test_a_copy_of_a_copy_of_another_kind_points_to_what_stays(tmp_path):
    records = [
        picture("a", "one", image_feature=feature_at(0), width=90),
        picture("b", "two", image_feature=feature_at(3), perceptual_hash=hash_at(0), width=50),
        *(picture(name, "three", perceptual_hash=hash_at(5)) for name in "cd"),
    ]
    found = duplicates(write_corpus(tmp_path, [records]), perceptual=0.05, semantic=0.01)
    assert {row["duplicate_of"] for row in found.values()} == {"a"}
    assert {row["method"] for row in found.values()} == {"semantic"}


def test_a_blank_picture_is_a_copy_of_equal_pixels_alone(tmp_path):
    records = [picture("a", "white"), picture("b", "black"), picture("c", "white")]
    assert keepers(write_corpus(tmp_path, [records]), perceptual=0.3) == {"c": "a"}


def test_a_corpus_without_pictures_has_copies_of_texts_alone(tmp_path):
    inputs = write_corpus(tmp_path, [[text("a", "x")], [text("b", "x")], []])
    assert keepers(inputs, perceptual=0.1, semantic=0.1) == {"b": "a"}


ANGLES = st.lists(st.tuples(st.integers(0, 359), st.integers(1, 3)), min_size=1, max_size=25)


@settings(max_examples=10, deadline=None)
@given(ANGLES, st.randoms(use_true_random=False))
def test_the_order_of_records_and_parts_decides_nothing(angles, chance):
    records = [
        picture(f"r{number}", f"image-{degrees}", perceptual_hash=hash_at(degrees), width=width)
        for number, (degrees, width) in enumerate(angles)
    ]
    found = []
    for _ in range(2):
        chance.shuffle(records)
        cut = chance.randrange(len(records) + 1)
        with tempfile.TemporaryDirectory() as folder:
            inputs = write_corpus(Path(folder), [records[:cut], records[cut:]])
            found.append(keepers(inputs, perceptual=0.02))
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[0].values())
