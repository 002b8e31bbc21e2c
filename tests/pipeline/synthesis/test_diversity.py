"""The figures of diversity: bounds, golden values, and what they must not depend on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from pipeline.synthesis.critics.similarity import order_words
from pipeline.synthesis.diversity import (
    MIN_SEGMENT,
    MIN_TEXTS,
    NEAR,
    SEGMENT,
    Text,
    balance,
    commonest,
    compare,
    distinct,
    entropy,
    growth,
    near_duplicates,
    ngrams,
    self_bleu,
    split_tokens,
    spread,
    take,
)

SIX = [
    "a red circle on a white ground",
    "a red circle",
    "a blue square on a white ground",
    "two green cats",
    "a red circle",
    "the picture shows a dark tone hand that waves",
]
WORDS = st.sampled_from(["a", "red", "blue", "circle", "circles", "cat", "on", "two", "Grün", "犬"])
PHRASES = st.lists(WORDS, min_size=1, max_size=7).map(" ".join)
TEXTS = st.lists(
    st.builds(Text, record_id=st.sampled_from(["r1", "r2", "r3"]), text=PHRASES), max_size=40
)


def texts_of(phrases: list[str]) -> list[Text]:
    return [Text(record_id=f"r{number}", text=phrase) for number, phrase in enumerate(phrases)]


def embed(texts: list[str]) -> np.ndarray:
    """Unit vectors of how often each letter comes: equal texts have equal ones."""
    counts = np.array([[1 + text.count(letter) for letter in "aeiou"] for text in texts], float)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_distinct_and_entropy_are_those_counted_by_hand():
    words = [["a", "b", "a"], ["a", "b"]]
    ones, twos = ngrams(words, 1), ngrams(words, 2)
    assert twos == [("a", "b"), ("b", "a"), ("a", "b")]
    assert distinct(ones, 5) == pytest.approx(2 / 5)
    assert distinct(twos, 3) == pytest.approx(2 / 3)
    assert entropy(twos, 3) == pytest.approx(math.log(3) - 2 / 3 * math.log(2))


def test_figures_are_means_over_full_segments():
    grams = [("a",), ("b",), ("a",), ("a",), ("c",)]
    assert distinct(grams, 2) == pytest.approx((1 + 1 / 2) / 2)
    assert distinct(grams, 6) is None


def test_self_bleu_is_what_sacrebleu_gives():
    # A hundredth of what sacrebleu 2.6.0's BLEU(effective_order=True, tokenize="none") gives as
    # sentence_score of each text with the other five as its references.
    golden = [
        0.5946035575013604, 1.0, 0.43472087194499137, 0.0, 1.0, 0.04767707020457095,
    ]  # fmt: skip
    found = self_bleu([text.split() for text in SIX])
    assert found == pytest.approx(sum(golden) / len(golden), abs=1e-12)


def test_self_bleu_of_equal_texts_is_one_and_of_texts_without_a_common_word_zero():
    assert self_bleu([["a", "red", "circle"]] * 3) == pytest.approx(1)
    assert self_bleu([["a", "dog"], ["two", "cats"], []]) == 0
    assert self_bleu([["a"]]) is None


@settings(deadline=None, max_examples=40)
@given(TEXTS, st.randoms(use_true_random=False))
def test_figures_are_within_their_bounds_and_do_not_depend_on_the_order(texts, random):
    mixed = list(texts)
    random.shuffle(mixed)
    found = compare({"one": texts, "repeated": texts * 12}, embed)
    assert compare({"one": mixed, "repeated": mixed * 12}, embed) == found
    assert found.segment is None or MIN_SEGMENT <= found.segment <= SEGMENT
    for group in found.groups.values():
        for share in (group.distinct_1, group.distinct_2, group.self_bleu, group.near_duplicates):
            assert share is None or 0 <= share <= 1 + 1e-12
        assert group.entropy is None or 0 <= group.entropy <= found.max_entropy + 1e-9
        assert group.spread is None or 0 <= group.spread <= 2


@settings(deadline=None, max_examples=40)
@given(PHRASES.filter(lambda phrase: len(split_tokens(phrase)) > 1))
def test_one_text_over_and_over_is_as_poor_as_can_be(phrase):
    (group,) = compare({"same": texts_of([phrase] * MIN_SEGMENT)}, embed).groups.values()
    pairs = ngrams([split_tokens(phrase)], 2)
    assert group.self_bleu == pytest.approx(1)
    assert group.spread == pytest.approx(0, abs=1e-9)
    assert group.near_duplicates == 1
    assert group.distinct_2 is not None
    assert group.distinct_2 <= len(set(pairs)) / MIN_SEGMENT


def test_groups_of_other_sizes_are_measured_on_as_many_words_and_texts():
    phrase = " ".join(f"w{n}" for n in range(MIN_SEGMENT + 1))
    small = texts_of([phrase])
    large = texts_of([phrase, *(f"{phrase} {n}" for n in range(MIN_TEXTS))])
    found = compare({"small": small, "large": large, "tiny": texts_of(["a dog"])}, None)
    assert found.segment == MIN_SEGMENT
    assert found.bleu_texts == MIN_TEXTS + 1
    assert found.groups["small"].distinct_2 == 1
    assert found.groups["small"].self_bleu is None
    assert found.groups["tiny"].distinct_2 is None
    alone = compare({"tiny": texts_of(["a dog"])}, embed)
    assert (alone.segment, alone.bleu_texts) == (None, None)
    assert alone.groups["tiny"].spread is None


@settings(deadline=None)
@given(TEXTS.filter(bool))
def test_near_duplicates_are_those_that_comparing_every_pair_finds(texts):
    near = [
        any(
            other.record_id != one.record_id
            and fuzz.ratio(order_words(one.text), order_words(other.text)) >= NEAR
            for other in texts
        )
        for one in texts
    ]
    assert near_duplicates(texts) == pytest.approx(sum(near) / len(texts))


def test_text_near_another_of_its_own_record_is_no_near_duplicate():
    pair = ["a red circle on the white ground", "A red circle on a white ground."]
    own = [Text(record_id="r", text=text) for text in pair]
    assert near_duplicates(own) == 0
    assert near_duplicates(texts_of(pair)) == 1
    longer = texts_of(["a red circle on a white ground", "red circles on a white ground", "a dog"])
    assert near_duplicates(longer) == pytest.approx(2 / 3)


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**31))
def test_spread_is_the_mean_over_all_pairs(count, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = [1 - vectors[i] @ vectors[j] for i in range(count) for j in range(i)]
    assert spread(vectors) == pytest.approx(np.mean(distances), abs=1e-9)
    assert spread(vectors[:1]) is None


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9).filter(any))
def test_balance_is_one_only_where_all_counts_are_equal(counts):
    found = balance(counts)
    assert found is not None
    assert 0 <= found.evenness <= 1 + 1e-9
    assert 0 <= found.ratio <= 1
    assert (found.ratio == 1) == (len(set(counts)) == 1)
    assert balance(sorted(counts)).ratio == found.ratio


def test_balance_of_three_styles_is_that_counted_by_hand():
    found = balance([1, 1, 2])
    assert found.evenness == pytest.approx(1.5 * math.log(2) / math.log(3))
    assert found.ratio == 0.5
    assert balance([5, 0]).evenness == 0
    assert balance([0, 0]) is None
    assert balance([]) is None


def test_words_have_no_case_and_characters_without_spaces_are_words():
    assert split_tokens("Two RED-haired Ämter, 3") == ["two", "red", "haired", "ämter", "3"]
    assert split_tokens("赤い circle") == ["赤", "い", "circle"]


@settings(deadline=None)
@given(TEXTS)
def test_growth_ends_with_all_pairs_and_all_different_ones(texts):
    pairs = ngrams([split_tokens(one.text) for one in texts], 2)
    points = growth(texts)
    assert points[0] == (0, 0)
    assert points[-1] == (len(pairs), len(set(pairs)))
    assert points == sorted(points)


def test_commonest_texts_are_counted_by_record_and_not_by_text():
    texts = [
        *(Text(record_id="r1", text=text) for text in ("a dog", "dog", "a cat", "one bird")),
        *(Text(record_id="r2", text=text) for text in ("The dog.", "a cat")),
        Text(record_id="r3", text="dog"),
    ]
    assert commonest(texts, 5) == [("The dog.", 3), ("a cat", 2)]
    assert commonest(texts, 1) == [("The dog.", 3)]


def test_long_texts_do_not_make_the_comparison_long():
    texts = texts_of(["a dog " * 20_000, "a cat", "a bird"])
    assert len(take(texts, size=4000)) <= 2
    assert len(take(texts, size=4100)) == 3
    assert take(reversed(texts)) == take(texts)
