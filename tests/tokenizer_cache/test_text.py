from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.fingerprint import hash_file
from pipeline.errors import UserError
from tests.tokenizer_cache.corpus import Selected, fit_inputs, write_part
from tokenizer_cache.settings import TextSettings
from tokenizer_cache.text import TextTokenizer, describe_text, fit, load_text
from tokenizer_cache.vocabulary import SPECIAL_TOKENS

CAPTIONS = [f"a {size} {colour} square" for size in ("big", "small") for colour in ("red", "blue")]


def fitted(root: Path, captions: list[str], *, split: str = "train") -> Path:
    selected = [
        Selected(record_id=f"r{n}", stream="text", caption=text, split=split)
        for n, text in enumerate(captions)
    ]
    folder = root / "model"
    folder.mkdir()
    inputs = fit_inputs(write_part(root, "part", selected))
    assert list(fit(TextSettings(vocab_size=300), inputs, folder))[-1].done == 1
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return load_text(fitted(tmp_path_factory.mktemp("text"), CAPTIONS))


def test_frequent_words_become_few_tokens(tokenizer: TextTokenizer) -> None:
    assert len(tokenizer.encode("a small red square")) <= 6
    assert 256 < tokenizer.num_tokens <= 300


@given(st.text())
@settings(deadline=None)
def test_any_text_comes_back_as_it_was(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.num_tokens for token in ids)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_text_that_looks_like_a_special_token_is_plain_bytes(
    tokenizer: TextTokenizer, token: str
) -> None:
    assert len(tokenizer.encode(token)) > 1
    assert tokenizer.decode(tokenizer.encode(f"a {token} b")) == f"a {token} b"


def test_the_order_of_the_texts_changes_nothing(tmp_path: Path) -> None:
    folders = []
    for name, captions in (("there", CAPTIONS), ("back", CAPTIONS[::-1])):
        (tmp_path / name).mkdir()
        folders.append(fitted(tmp_path / name, captions))
    first, second = (hash_file(folder / "tokenizer.json") for folder in folders)
    assert first == second
    assert describe_text(folders[0]) == describe_text(folders[1])


def test_held_out_texts_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text"):
        fitted(tmp_path, [], split="validation")
    (tmp_path / "other").mkdir()
    tokenizer = load_text(fitted(tmp_path / "other", CAPTIONS, split="validation"))
    assert tokenizer.num_tokens == 256
