from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from jobs.recipe import load_recipe
from pipeline.errors import UserError
from tests.trainer.conftest import Squares, train_run
from tests.trainer.test_train import changed, losses, save, tensors
from trainer.data.batch import modalities
from trainer.run import read_metrics
from trainer.settings import TrainSettings
from trainer.train.tally import Tally
from trainer.train.trainer import Trainer

SMALL = {
    "model": {"layers": 1, "width": 32, "heads": 2},
    "seq_len": 96,
    "tokens_per_step": 8 * 96,
    "caption_max_tokens": 16,
}

STAGES = [
    {"steps": 3, "freeze": ["blocks", "tokens"], "mix": {"text": 0, "mixed": 0}},
    {"steps": 4, "loss": {"image": 0.5}},
    {"steps": 5, "freeze": ["head"], "learning_rate_scale": 0.1},
]


def staged(**changes: object) -> TrainSettings:
    return changed(stages=STAGES, **changes)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    model = trainer.checkpoint({}, held_out=None).model
    return {name: each.clone() for name, each in model.items()}


def test_frozen_parts_keep_their_weights_and_the_others_learn(squares: Squares) -> None:
    trainer = Trainer(staged(), squares.manifest)
    moved = []
    for stage in STAGES:
        before = weights(trainer)
        for _ in range(stage["steps"]):
            trainer.advance()
        after = weights(trainer)
        parts = {n.partition(".")[0] for n in before if not torch.equal(before[n], after[n])}
        moved.append(parts)
    assert moved == [
        {"places", "head"},
        {"tokens", "places", "blocks", "head"},
        {"tokens", "places", "blocks"},
    ]


def test_a_stage_has_its_own_mix_and_rate(squares: Squares, tmp_path: Path) -> None:
    train_run(squares, tmp_path, staged(warmup=0, warmdown=0, evaluate_every_steps=3))
    lines = read_metrics(tmp_path)
    assert [line["stage"] for line in lines] == [0] * 3 + [1] * 4 + [2] * 5
    assert [line["learning_rate_scale"] for line in lines] == pytest.approx([1] * 7 + [0.1] * 5)
    assert set(lines[2]["shares"]["tokens"]) == {"image"}
    assert set(lines[5]["shares"]["tokens"]) == {"text", "image", "mixed"}
    # What is held out is the same in all stages.
    assert set(lines[2]["held_out_by_stream"]) == {"text", "image", "mixed"}


def test_the_weights_of_a_loss_are_those_of_its_stage(squares: Squares) -> None:
    only_text = [{"steps": 12, "loss": {"image": 0}}]
    staged_run = Trainer(changed(stages=only_text), squares.manifest)
    whole_run = Trainer(changed(loss={"image": 0}), squares.manifest)
    assert staged_run.advance().gradient_norm == whole_run.advance().gradient_norm


def test_a_stage_has_its_own_tasks(squares: Squares) -> None:
    read = {"tasks": {"image": {"text_to_image": 0, "image_to_text": 1}}}
    stages = [{"steps": 2, **read}, {"steps": 10}]
    trainer = Trainer(changed(stages=stages, mix={"text": 0, "mixed": 0}), squares.manifest)
    tasks = [set(trainer.advance().tally.by_task()) for _ in range(4)]
    assert tasks == [{"image_to_text"}] * 2 + [{"text_to_image"}] * 2
    assert trainer.settings.learns("image_to_text")
    assert not trainer.settings.learns("infill")


def test_the_stages_of_janus_train_what_they_say(squares: Squares) -> None:
    recipe = load_recipe(Path("jobs/recipes/janus-stages.yaml")).train.model_dump()
    stages = [{**stage, "steps": 12} for stage in recipe["stages"]]
    trainer = Trainer(
        changed(**{**recipe, **SMALL, "stages": stages, "steps": 36}), squares.manifest
    )
    shares, moved = [], []
    for stage in stages:
        before, tally = weights(trainer), Tally.empty(modalities(squares.manifest.vocabulary))
        for _ in range(stage["steps"]):
            tally += trainer.advance().tally
        after = weights(trainer)
        moved.append({n.partition(".")[0] for n in before if not torch.equal(before[n], after[n])})
        assert trainer.stage_is_over
        given = {name: sum(part.counts().values()) for name, part in tally.by_task().items()}
        shares.append({name: number / sum(given.values()) for name, number in given.items()})
    everything = {"tokens", "places", "blocks", "head"}
    assert moved == [everything - {"blocks"}, everything, everything]
    wanted = [(1 / 4, 0, 3 / 4), (2 / 10, 3 / 10, 5 / 10), (5 / 10, 1 / 10, 4 / 10)]
    for share, ratio in zip(shares, wanted, strict=True):
        found = [share.get(task, 0) for task in ("image_to_text", "text_alone", "text_to_image")]
        assert found == pytest.approx(ratio, abs=0.08), "understanding : text : generation"


@pytest.mark.parametrize("num_steps", [2, 3, 7, 9])
def test_a_run_resumes_exactly_inside_and_between_stages(
    squares: Squares, tmp_path: Path, staged_run: Path, num_steps: int
) -> None:
    trainer = Trainer(staged(), squares.manifest)
    before = [dict(trainer.advance().losses) for _ in range(num_steps)]
    save(trainer, tmp_path, squares.manifest)
    train_run(squares, tmp_path, staged())
    assert before + losses(tmp_path) == losses(staged_run)
    expected, found = tensors(staged_run), tensors(tmp_path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.fixture(scope="module")
def staged_run(squares: Squares, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staged")
    train_run(squares, folder, staged())
    return folder


def test_other_stages_are_another_training(squares: Squares, staged_run: Path) -> None:
    other = [*STAGES[:2], {"steps": 5}]
    with pytest.raises(UserError, match=r"train\.stages was"):
        train_run(squares, staged_run, changed(stages=other))


def test_a_later_stage_without_samples_is_found_before_the_first_step(squares: Squares) -> None:
    only_sounds = {"text": 0, "image": 0, "mixed": 0, "audio": 1}
    stages = [{"steps": 6}, {"steps": 6, "mix": only_sounds}]
    with pytest.raises(UserError, match=r"no training samples in .* the mix of stage 2"):
        Trainer(changed(stages=stages), squares.manifest)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"steps": 5}], "the stages add up to 5, and steps is 12"),
        ([{"steps": 12, "freeze": ["tokens", "places", "blocks", "head"]}], "nothing would learn"),
        ([{"steps": 12, "freeze": ["attention"]}], "'tokens', 'places', 'blocks' or 'head'"),
    ],
)
def test_stages_that_cannot_be_are_refused(stages: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        changed(stages=stages)
