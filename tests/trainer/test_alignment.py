"""Condition contrastive alignment against a plain computation, and what it does to a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from pipeline.errors import UserError
from tests.trainer.conftest import Squares, train_run
from tests.trainer.test_train import changed, losses, tensors
from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.batch import collate
from trainer.data.packing import Row, build_row, unpack
from trainer.data.rows import row_of
from trainer.data.sequence import Segment, Writer, ids_of, read_document
from trainer.evaluate.likelihood import condition_test, pairs_of
from trainer.evaluate.settings import EvaluateSettings
from trainer.model.decoder import Decoder
from trainer.run import Run, load_run, read_metrics
from trainer.settings import AlignmentSettings, TrainSettings
from trainer.train.alignment import Alignment
from trainer.train.checkpoint import best_checkpoint, read_average, read_state, save_checkpoint
from trainer.train.loop import find_start
from trainer.train.trainer import Trainer

ALONE = {"text": 0, "image": 1, "mixed": 0, "audio": 0}
ALIGNED: dict[str, Any] = {
    "steps": 6,
    "mix": ALONE,
    "code_corruption": 0,
    "warmup": 0,
    "alignment": {"beta": 0.05, "weight": 20},
}


def aligned(**changes: object) -> TrainSettings:
    return changed(**(ALIGNED | changes))


@pytest.fixture(scope="module")
def first(squares: Squares, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    train_run(squares, folder, changed(steps=10))
    return folder


def weights_of(run: Path) -> dict[str, Tensor]:
    best = best_checkpoint(run)
    assert best is not None
    return read_average(best)


@torch.no_grad()
def log_likelihood(model: Decoder, vocabulary: Vocabulary, document: Sequence[Segment]) -> float:
    """Of a picture's codes after a text, in nats."""
    written = Writer(vocabulary).write(document)
    row = row_of(written, seq_len=len(written.tokens), pad=vocabulary.special("<pad>"))
    batch = collate([row], torch.device("cpu"))
    logits = F.linear(batch.hidden(model), model.head.weight)[0]  # (T, V)
    targets = batch.targets[0]
    is_code = (targets >= vocabulary.image.start) & (targets < vocabulary.image.stop)
    return -float(F.cross_entropy(logits[is_code], targets[is_code], reduction="sum"))


def plain_loss(
    rows: Sequence[Row], model: Decoder, reference: Decoder, vocabulary: Vocabulary
) -> tuple[float, int]:
    """The loss of a step as the paper and its code write it, a document at a time."""
    beta, weight = ALIGNED["alignment"]["beta"], ALIGNED["alignment"]["weight"]

    def term(sign: int, text: Segment, picture: Segment) -> float:
        own, before = (
            log_likelihood(each, vocabulary, [text, picture]) for each in (model, reference)
        )
        return -float(F.logsigmoid(torch.tensor(sign * beta * (own - before))))

    documents = [read_document(tokens, vocabulary) for row in rows for tokens in unpack(row)]
    with_text = [document for document in documents if document[0].size]
    total, num_others = 0.0, 0
    for text, picture in documents:
        total += term(1, text, picture)
        at = next((n for n, each in enumerate(with_text) if each[0] is text), None)
        other = text if at is None else with_text[(at + 1) % len(with_text)][0]
        if np.array_equal(ids_of(other), ids_of(text)):
            total += term(1, text, picture)
        else:
            total += weight * term(-1, other, picture)
            num_others += 1
    return total / len(documents) / weight, num_others


def test_the_loss_is_that_of_a_plain_computation(squares: Squares, first: Path) -> None:
    settings = aligned(condition_dropout=0.4, tokens_per_step=6 * 96)
    trainer, reference = (Trainer(settings, squares.manifest) for _ in range(2))
    reference.begin_with(weights_of(first))
    trainer.align_with(weights_of(first))
    rows = reference.loader.next_rows(settings.rows_per_step)
    expected, num_others = plain_loss(
        rows, trainer.average, reference.average, squares.manifest.vocabulary
    )
    assert 0 < num_others < sum(len(unpack(row)) for row in rows)
    assert trainer.advance().alignment["loss"] == pytest.approx(expected, rel=1e-5)


def test_micro_batches_add_up_to_the_gradient_of_the_whole_step(
    squares: Squares, first: Path
) -> None:
    whole, parts = (Trainer(aligned(micro_batch_size=size), squares.manifest) for size in (None, 1))
    for each in (whole, parts):
        each.begin_with(weights_of(first))
        each.align_with(weights_of(first))
    for _ in range(3):
        one, other = whole.advance(), parts.advance()
        assert other.alignment == pytest.approx(one.alignment, rel=1e-4, abs=1e-5)
        assert other.losses == pytest.approx(one.losses, rel=1e-5)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)


def row_with(vocabulary: Vocabulary, *documents: tuple[str, int]) -> Row:
    """A row of documents, each a text of so many letters and a picture of so many codes."""
    name, letters, code = vocabulary.special, vocabulary.text.start, vocabulary.image.start
    written = [
        [name("<txt>"), *(letters + ord(each) for each in text), name("</txt>"),
         name("<img>"), *[code] * size, name("</img>"), name("<eos>")]
        for text, size in documents
    ]  # fmt: skip
    return build_row(written, seq_len=96, pad=name("<pad>"))


def test_a_picture_keeps_its_own_text_where_it_has_no_other(squares: Squares, trained: Run) -> None:
    vocabulary = squares.manifest.vocabulary
    alignment = Alignment(AlignmentSettings(weight=20), trained.model, vocabulary)

    def weights(*rows: str) -> list[list[float]]:
        """Of rows with a document for each letter; a space is a dropped text."""
        own = [row_with(vocabulary, *((each.strip(), 16) for each in row)) for row in rows]
        return [each.weights.tolist() for each in alignment.rows(own)]

    assert weights("ab") == [[1, 1], [-20, -20]]
    assert weights("aa", "a") == [[2, 2], [2]]
    assert weights("a ", "b") == [[1, 2], [1], [-20, -20]]
    assert weights("a ") == [[2, 2]]


def test_a_text_that_a_larger_picture_leaves_no_room_for_is_cut(
    squares: Squares, trained: Run
) -> None:
    vocabulary = squares.manifest.vocabulary
    alignment = Alignment(AlignmentSettings(), trained.model, vocabulary)
    own = [row_with(vocabulary, ("a" * 60, 4)), row_with(vocabulary, ("b", 80))]
    others = [tokens for each in alignment.rows(own)[2:] for tokens in unpack(each.row)]
    assert sorted(map(len, others)) == [10, 96]
    text, picture = read_document(max(others, key=len), vocabulary)
    assert (text.size, picture.size) == (11, 80)


def test_a_run_resumes_exactly_and_knows_its_reference(
    squares: Squares, first: Path, tmp_path: Path
) -> None:
    whole, resumed, settings = tmp_path / "whole", tmp_path / "resumed", aligned()
    train_run(squares, whole, settings, init=first)
    trainer = Trainer(settings, squares.manifest)
    trainer.begin_with(weights_of(first))
    trainer.align_with(weights_of(first))
    before = [dict(trainer.advance().losses) for _ in range(3)]
    decided = find_start(settings, squares.manifest, resumed, init=first).decided
    checkpoint = trainer.checkpoint(decided, held_out=None)
    save_checkpoint(resumed, checkpoint, num_kept=1, decay_step=0)
    train_run(squares, resumed, settings, init=first)
    assert before + losses(resumed) == losses(whole)
    expected, found = tensors(whole), tensors(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    lines = read_metrics(whole)
    # At the first step nothing has become likelier or less likely yet.
    assert lines[0]["alignment"] == pytest.approx(
        {"loss": np.log(2) * (1 + 1 / 20), "own": 0, "others": 0}, rel=0.05, abs=1e-5
    )


def test_the_weights_with_the_least_held_out_loss_of_the_alignment_are_used(
    squares: Squares, first: Path, tmp_path: Path
) -> None:
    train_run(squares, tmp_path, aligned(evaluate_every_steps=2), init=first)
    held_out = [line["held_out"] for line in read_metrics(tmp_path) if "held_out" in line]
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert read_state(best)["held_out"] == min(each["alignment"] for each in held_out)


def test_an_alignment_begins_with_the_weights_of_a_run(squares: Squares, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.alignment aligns the weights of another run"):
        find_start(aligned(), squares.manifest, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mix": ALONE | {"text": 1, "audio": 1}}, r"mix\.audio and mix\.text must be 0"),
        ({"tasks": {"image": {"infill": 1}}}, r"tasks\.image\.infill must be 0"),
        ({"code_corruption": 0.1}, "code_corruption must be 0"),
        ({"stages": [{"steps": 6, "mix": ALONE | {"mixed": 1}}]}, r"mix\.mixed must be 0"),
        (
            {"stages": [{"steps": 6, "tasks": {"image": {"image_to_text": 1}}}]},
            r"tasks\.image\.image_to_text must be 0",
        ),
        ({"tokens_per_step": 96}, "a step has two rows or more"),
    ],
)
def test_what_cannot_be_aligned_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        aligned(**changes)


def test_pictures_hang_more_on_their_own_texts_after_an_alignment(
    trained: Run, squares: Squares, tmp_path: Path
) -> None:
    settings = TrainSettings.model_validate(
        trained.settings.model_dump()
        | {"mix": ALONE, "steps": 20, "learning_rate": 0.0004, "matrix_learning_rate": 0.002}
        | {"alignment": {}}
    )
    train_run(squares, tmp_path, settings, init=trained.folder)
    run = load_run(tmp_path)
    gains = []
    for each in (trained, run):
        test = condition_test(
            each, pairs_of(squares.manifest, "validation", 32), EvaluateSettings()
        )
        assert test is not None
        gains.append(test.gain_nats)
    assert gains[1] > gains[0]
