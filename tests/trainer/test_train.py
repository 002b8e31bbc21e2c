import os
import shutil
import signal
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.errors import FAILED, STOPPED, WRONG, UserError
from tests.pipeline.sources.files import forbidden_to_root
from tests.trainer.conftest import Squares, train_run
from tokenizer_cache.manifest import Manifest
from trainer.run import METRICS, load_run, read_metrics
from trainer.settings import ModelSettings, TrainSettings
from trainer.train.checkpoint import (
    CHECKPOINTS,
    best_checkpoint,
    newest_checkpoint,
    read_average,
    read_checkpoint,
    read_state,
    save_checkpoint,
)
from trainer.train.loop import find_start, what_decides
from trainer.train.pinned import pin_shards, pinned_manifest
from trainer.train.trainer import NonFiniteError, Trainer

SETTINGS = TrainSettings(
    model=ModelSettings(layers=2, width=32, heads=2),
    seq_len=96,
    tokens_per_step=4 * 96,
    steps=12,
    caption_max_tokens=16,
    code_corruption=0.3,
    evaluate_every_steps=6,
    evaluate_rows=4,
    checkpoint_every_steps=5,
)


def changed(**changes: object) -> TrainSettings:
    return TrainSettings.model_validate(SETTINGS.model_dump() | changes)


def losses(run: Path) -> list[dict[str, float]]:
    return [line["train"] for line in read_metrics(run)]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    folder = newest_checkpoint(run)
    assert folder is not None
    checkpoint = read_checkpoint(folder)
    average = {f"average {name}": tensor for name, tensor in checkpoint.average.items()}
    return {**checkpoint.model, **checkpoint.optimizer, **average}


def save(trainer: Trainer, run: Path, manifest: Manifest) -> None:
    decided = what_decides(trainer.settings, manifest)
    checkpoint = trainer.checkpoint(decided, held_out=None)
    save_checkpoint(run, checkpoint, num_kept=1, decay_step=0)


def break_a_weight(trainer: Trainer) -> None:
    weights = next(trainer._model.parameters())
    with torch.no_grad():
        weights[0, 0] = float("inf")


@pytest.mark.parametrize("num_steps", [1, 7])
def test_a_run_that_resumed_is_bit_for_bit_an_undisturbed_one(
    squares: Squares, tmp_path: Path, num_steps: int
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train_run(squares, whole, SETTINGS)
    trainer = Trainer(SETTINGS, squares.manifest)
    before = [dict(trainer.advance().losses) for _ in range(num_steps)]
    save(trainer, resumed, squares.manifest)
    train_run(squares, resumed, SETTINGS)
    assert before + losses(resumed) == losses(whole)
    expected, found = tensors(whole), tensors(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_micro_batches_add_up_to_the_gradient_of_the_whole_step(squares: Squares) -> None:
    whole = Trainer(SETTINGS, squares.manifest)
    parts = Trainer(changed(micro_batch_size=1), squares.manifest)
    for _ in range(3):
        one, other = whole.advance(), parts.advance()
        assert other.losses == pytest.approx(one.losses, rel=1e-5)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
    for weight, same in zip(whole._model.parameters(), parts._model.parameters(), strict=True):
        torch.testing.assert_close(weight, same, rtol=1e-3, atol=1e-5)


def test_the_average_follows_the_weights(squares: Squares) -> None:
    trainer = Trainer(changed(ema_decay=0.0), squares.manifest)
    trainer.advance()
    checkpoint = trainer.checkpoint({}, held_out=None)
    assert all(torch.equal(checkpoint.average[n], each) for n, each in checkpoint.model.items())
    slow = Trainer(changed(ema_decay=0.9), squares.manifest)
    for _ in range(3):
        slow.advance()
    checkpoint = slow.checkpoint({}, held_out=None)
    assert not torch.equal(checkpoint.average["head.weight"], checkpoint.model["head.weight"])


def test_a_signal_stops_after_the_step_in_hand_and_the_same_command_resumes(
    squares: Squares, tmp_path: Path
) -> None:
    endless = changed(steps=10**6)
    stop_at_first_line(tmp_path / METRICS)
    with pytest.raises(UserError, match="The same command resumes there") as stopped:
        train_run(squares, tmp_path, endless)
    assert stopped.value.exit_code == STOPPED
    start = find_start(endless, squares.manifest, tmp_path)
    assert start.checkpoint is not None
    assert not start.is_done
    assert read_state(start.checkpoint)["step"] == len(losses(tmp_path))


def test_lines_of_steps_that_a_crash_took_back_are_dropped(
    squares: Squares, tmp_path: Path
) -> None:
    trainer = Trainer(SETTINGS, squares.manifest)
    trainer.advance()
    save(trainer, tmp_path, squares.manifest)
    lines = [
        '{"step": 1, "tokens": 9, "train": {}}', '{"step": 2, "tokens": 9, "train": {}}',
        '{"step": 3, "tr',
    ]  # fmt: skip
    (tmp_path / METRICS).write_text("\n".join(lines))
    train_run(squares, tmp_path, SETTINGS)
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 13))


def test_training_lowers_the_held_out_loss_and_the_best_average_is_what_is_used(
    squares: Squares, tmp_path: Path
) -> None:
    train_run(squares, tmp_path, changed(steps=60, evaluate_every_steps=10))
    lines = [line for line in read_metrics(tmp_path) if "held_out" in line]
    held_out = [line["held_out"] for line in lines]
    assert set(held_out[0]) == {"special", "text", "image", "all"}
    assert held_out[-1]["all"] < held_out[0]["all"] * 0.7
    least = min(lines, key=lambda line: line["held_out"]["all"])
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert read_state(best)["held_out"] == least["held_out"]["all"]
    used = load_run(tmp_path).model.state_dict()
    assert all(torch.equal(used[name], each) for name, each in read_average(best).items())


def test_metrics_tell_norm_rate_padding_and_epochs_and_padding_is_no_token(
    squares: Squares, tmp_path: Path
) -> None:
    train_run(squares, tmp_path, SETTINGS)
    lines = read_metrics(tmp_path)
    assert all(line["gradient_norm"] > 0 and 0 < line["learning_rate_scale"] <= 1 for line in lines)
    for line in lines:
        assert line["mfu"] > 0
        assert set(line["targets"]) <= {"special", "text", "image"}
        assert 0 < sum(line["targets"].values()) < SETTINGS.tokens_per_step
        for part in ("stream", "task"):
            counts, means = line[f"targets_by_{part}"], line[f"train_by_{part}"]
            sums = {name: sum(each.values()) for name, each in counts.items()}
            assert sum(sums.values()) == sum(line["targets"].values())
            nats = sum(means[name]["all"] * number for name, number in sums.items())
            assert nats / sum(sums.values()) == pytest.approx(line["train"]["all"])
    assert set(lines[0]["targets_by_stream"]) == {"text", "image", "mixed"}
    assert set(lines[0]["targets_by_task"]) == {"text_alone", "text_to_image", "interleaved"}
    tokens = [line["tokens"] for line in lines]
    given = [after - before for before, after in zip([0, *tokens], tokens, strict=False)]
    padded = SETTINGS.tokens_per_step
    assert given == [round(padded * (1 - line["padding"])) for line in lines]
    assert sum(given) < len(lines) * padded
    look = lines[-1]
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    assert all(f"`{key}`" in page for key in look), "docs/training.md explains each figure"
    assert set(look["epochs"]) == set(look["held_out_by_stream"]) == {"text", "image", "mixed"}
    assert set(look["held_out_by_stream"]["text"]) == {"special", "text", "all"}
    assert set(look["norms"]) == {"q", "k", "logits", "largest_logit"}
    assert look["norms"]["largest_logit"] > look["norms"]["logits"] > 0


def test_a_finished_run_is_not_trained_again(squares: Squares, tmp_path: Path) -> None:
    train_run(squares, tmp_path, SETTINGS)
    start = find_start(SETTINGS, squares.manifest, tmp_path)
    assert (start.is_done, start.is_outdated) == (True, False)
    looking_oftener = changed(evaluate_every_steps=1, keep_checkpoints=9)
    assert find_start(looking_oftener, squares.manifest, tmp_path).is_done
    assert not find_start(SETTINGS, squares.manifest, tmp_path, fresh=True).is_done


def test_another_training_is_refused_by_what_differs_and_nothing_is_touched(
    squares: Squares, tmp_path: Path
) -> None:
    train_run(squares, tmp_path, SETTINGS)
    before = contents(tmp_path)
    with pytest.raises(UserError) as refused:
        find_start(changed(steps=13, z_loss=0.1), squares.manifest, tmp_path)
    assert refused.value.exit_code == WRONG
    assert "train.steps was 12 and is 13; train.z_loss was 1e-05 and is 0.1" in str(refused.value)
    assert "--fresh" in refused.value.hint
    assert contents(tmp_path) == before
    train_run(squares, tmp_path, changed(steps=1), fresh=True)
    assert len(read_metrics(tmp_path)) == 1


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_samples(
    squares: Squares, tmp_path: Path
) -> None:
    trainer = Trainer(SETTINGS, squares.manifest)
    trainer.advance()
    save(trainer, tmp_path, squares.manifest)
    kept = contents(tmp_path / CHECKPOINTS)
    break_a_weight(trainer)
    before = {name: each.clone() for name, each in trainer._model.named_parameters()}
    with pytest.raises(NonFiniteError, match=r"step 2: the loss .* is not a finite number") as bad:
        trainer.advance()
    assert bad.value.exit_code == FAILED
    keys = bad.value.message.rpartition("samples are ")[2].split(", ")
    assert keys[0].startswith(("text-train-", "image-train-", "mixed-train-"))
    assert all(torch.equal(each, before[n]) for n, each in trainer._model.named_parameters())
    assert contents(tmp_path / CHECKPOINTS) == kept


def test_optimiser_state_goes_to_the_device_of_its_parameters(
    squares: Squares, tmp_path: Path
) -> None:
    trainer = Trainer(SETTINGS, squares.manifest)
    trainer.advance()
    save(trainer, tmp_path, squares.manifest)
    folder = newest_checkpoint(tmp_path)
    assert folder is not None
    elsewhere = Trainer(SETTINGS, squares.manifest, device=torch.device("meta"))
    elsewhere._optimizers.load_state_dict(read_checkpoint(folder).optimizer)
    for name, value in elsewhere.checkpoint({}, held_out=None).optimizer.items():
        # torch keeps AdamW's counts of steps on the CPU.
        assert value.device.type == ("cpu" if name.endswith(":step") else "meta"), name


def test_a_run_keeps_the_shards_that_it_began_on(squares: Squares, tmp_path: Path) -> None:
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    shutil.copytree(squares.shards, corpus)
    manifest = Manifest(
        folder=corpus,
        **{n: getattr(squares.manifest, n) for n in ("vocabulary", "shards", "samples")},
    )
    run.mkdir()
    pinned = pin_shards(manifest, run)
    for path in corpus.glob("*.tar"):  # a publication replaces files under their names
        (corpus / "new").write_bytes(b"of another night")
        (corpus / "new").replace(path)
    found = pinned_manifest(run)
    assert found is not None
    assert what_decides(SETTINGS, found) == what_decides(SETTINGS, manifest)
    trainer = Trainer(SETTINGS, pinned)
    expected = Trainer(SETTINGS, squares.manifest)
    assert trainer.advance().losses == expected.advance().losses


def test_shards_that_are_somebody_else_s_are_read_where_they_are(squares: Squares) -> None:
    with tempfile.TemporaryDirectory() as made:  # `tmp_path` is below what others may not enter
        corpus, run = Path(made, "corpus"), Path(made, "run")
        shutil.copytree(squares.shards, corpus)
        run.mkdir()
        for path in (Path(made), corpus):
            path.chmod(0o755)
        run.chmod(0o777)
        with forbidden_to_root():
            pinned = pin_shards(replace(squares.manifest, folder=corpus), run)
        assert pinned.shards == squares.manifest.shards


def test_the_rows_of_a_step_may_be_said_as_corpora_of_earlier_versions_do() -> None:
    assert TrainSettings.model_validate({"rows_per_step": 4}).tokens_per_step == 4 * 256
    assert TrainSettings(tokens_per_step=600).rows_per_step == 2


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in files}


def stop_at_first_line(path: Path, num_lines: int = 1) -> None:
    """Send this process a SIGTERM as soon as a file has so many lines: training is in its loop."""

    def watch() -> None:
        pause = threading.Event()
        while not (path.exists() and path.read_bytes().count(b"\n") >= num_lines):
            pause.wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
