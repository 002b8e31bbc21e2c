import json

import pytest

from tokenizer_cache.vocabulary import (
    NUM_RESERVED,
    SPECIAL_TOKENS,
    TokenizerDescription,
    Vocabulary,
    build_vocabulary,
)

TEXT = TokenizerDescription(modality="text", num_tokens=300, fingerprint="t")
IMAGE = TokenizerDescription(modality="image", num_tokens=64, fingerprint="i", grid=(8, 8))
AUDIO = TokenizerDescription(modality="audio", num_tokens=10, fingerprint="a")


def test_ranges_follow_each_other_from_the_special_tokens_on() -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE)
    assert vocabulary.text.start == NUM_RESERVED
    assert vocabulary.image.start == vocabulary.text.stop
    assert vocabulary.size == NUM_RESERVED + 300 + 64
    assert vocabulary.image.grid == (8, 8)
    assert [vocabulary.special(token) for token in SPECIAL_TOKENS] == list(
        range(len(SPECIAL_TOKENS))
    )


def test_every_id_has_the_modality_of_its_range() -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE)
    ids = {modality: [] for modality in ("special", "text", "image")}
    for token in range(vocabulary.size):
        ids[vocabulary.modality_of(token)].append(token)
    assert {name: (held[0], held[-1] + 1) for name, held in ids.items()} == {
        known.modality: (known.start, known.stop) for known in vocabulary.ranges
    }
    with pytest.raises(ValueError, match="outside"):
        vocabulary.modality_of(vocabulary.size)


def test_a_further_tokenizer_moves_no_id() -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE)
    longer = vocabulary.append(AUDIO)
    assert longer.ranges[:-1] == vocabulary.ranges
    assert longer.range_of("audio").start == vocabulary.size
    assert longer.fingerprint != vocabulary.fingerprint
    with pytest.raises(ValueError, match="already"):
        longer.append(AUDIO)


def test_json_gives_the_same_vocabulary_back() -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE).append(AUDIO)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again == vocabulary
    assert again.fingerprint == vocabulary.fingerprint


def test_other_codes_have_another_fingerprint() -> None:
    other = TokenizerDescription(modality="image", num_tokens=64, fingerprint="j", grid=(8, 8))
    assert build_vocabulary(TEXT, IMAGE).fingerprint != build_vocabulary(TEXT, other).fingerprint
