"""Images whose codes a corpus holds: which are encoded is told by the records announced."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine.parts import PARTS, PARTS_FILE
from pipeline.engine.tables import read_table, write_table
from pipeline.engine.token_schemas import TOKENS
from tests.tokenizer_cache.corpus import TINY_VQ, Selected, encode_work, fit_inputs, write_part
from tokenizer_cache.encode import EncodeWorker
from tokenizer_cache.settings import TokenizeSettings
from tokenizer_cache.vq.train import fit

RECORDS = [Selected(record_id=f"r{n}", stream="image") for n in range(6)]
CHANGED = [replace(each, caption="other words") for each in RECORDS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    folder = root / "vq"
    folder.mkdir()
    settings = TINY_VQ.model_copy(update={"steps": 2})
    list(fit(settings, fit_inputs(write_part(root, "part", RECORDS)), folder))
    return folder


class Corpus:
    """A folder with the token files that earlier runs have left, and the parts that it has now."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self._model = root, model
        self.have("new")

    def have(self, *parts: str) -> None:
        rows = [
            {"name": name, "source": "s", "slice": "{}", "num_records": 6, "size_bytes": 0,
             "look": ""}
            for name in parts
        ]  # fmt: skip
        write_table(self.root / PARTS_FILE, rows, PARTS)

    def tokenize(
        self, part: str, print_: str, records: list[Selected], tokenizer: str = "vq"
    ) -> tuple[list[object], list[str]]:
        """Commit the tokens of a part; its rows, and the records whose image was encoded."""
        inputs = write_part(self.root / f"inputs-{print_}", part, records, with_tokens=False)
        seen: dict[str, None] = {}  # a batch is announced one by one, and once more as a whole
        work = encode_work(self.root, inputs, part, tokenizer)
        work = replace(work, at=lambda ids: seen.update(dict.fromkeys(ids)))
        path = self.root / "tables" / "tokens" / print_ / f"{part}.parquet"
        write_table(path, EncodeWorker(TokenizeSettings(), {"vq": self._model})(work).rows, TOKENS)
        return read_table(path).to_pylist(), list(seen)


@pytest.fixture
def corpus(tmp_path: Path, model: Path) -> Corpus:
    return Corpus(tmp_path, model)


@pytest.mark.parametrize("before", ["new", "gone"])
def test_a_part_whose_captions_have_changed_encodes_nothing(corpus: Corpus, before: str) -> None:
    rows, seen = corpus.tokenize(before, "a", RECORDS)
    assert len(seen) == 6
    assert corpus.tokenize("new", "b", CHANGED) == (rows, [])


def test_only_images_that_have_no_codes_are_encoded(corpus: Corpus) -> None:
    rows, _ = corpus.tokenize("gone", "a", RECORDS[:2])
    more, seen = corpus.tokenize("new", "b", RECORDS)
    assert seen == ["r2", "r3", "r4", "r5"]
    assert more[:2] == rows


def test_codes_of_another_tokenizer_are_not_taken(corpus: Corpus) -> None:
    corpus.tokenize("new", "a", RECORDS, tokenizer="another")
    _, seen = corpus.tokenize("new", "b", RECORDS)
    assert len(seen) == 6


def test_a_table_of_an_earlier_version_and_a_damaged_one_are_passed_over(
    corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    old = TOKENS.remove(TOKENS.get_field_index("tokenizer"))
    write_table(corpus.root / "tables" / "tokens" / "a" / "gone.parquet", [], old)
    (corpus.root / "tables" / "tokens" / "a" / "new.parquet").write_bytes(b"PAR1")
    with caplog.at_level(logging.WARNING):
        _, seen = corpus.tokenize("new", "b", RECORDS)
    assert len(seen) == 6
    assert "encoded again" in caplog.text
