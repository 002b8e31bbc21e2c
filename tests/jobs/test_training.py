"""`anymix train` as it is typed: again, with another recipe, twice at once, on a moving corpus."""

import json
import shutil

from jobs.cli import call
from jobs.run import open_corpus
from jobs.training import find_shards
from pipeline.engine.lock import holding
from pipeline.errors import STOPPED, WRONG
from tests.trainer.test_train import contents, stop_at_first_line
from tokenizer_cache.manifest import open_manifest
from trainer.run import METRICS, read_metrics
from trainer.train.pinned import pin_shards


def train(recipe, corpus, out, *more):
    return call(["train", str(recipe), "--corpus", str(corpus), "--out", str(out), *more])


def test_a_finished_run_is_not_trained_again_and_a_refused_command_leaves_it_as_it_is(
    tiny_recipe, made, tmp_path, capsys
):
    run = tmp_path / "run"
    assert train(tiny_recipe, made, run) == 0
    before = contents(run)
    found = json.loads((run / "evaluation.json").read_text())
    assert found["shapes"]["true"]["all"] == {"num_right": 10, "num": 10}
    assert found["shapes"]["drawn"]["all"]["num"] == 20
    assert "Shape-GenEval: " in found["sentence"]
    assert found["retrieval"]["num_pictures"] == 8
    assert found["captions"]["num_pictures"] == 6
    assert "Retrieval with CLIP: " in found["sentence"]
    assert call(["eval", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert train(tiny_recipe, made, run) == 0
    assert "nothing has changed" in capsys.readouterr().err
    assert train(tiny_recipe, made, run, "--set", "train.steps=7") == WRONG
    assert "train.steps was 6 and is 7" in capsys.readouterr().err
    assert train(tiny_recipe, made, run, "--init", str(run)) == WRONG
    assert "--init and --out are both" in capsys.readouterr().err
    wider = ("--init", str(run), "--set", "train.model.layers=9")
    assert train(tiny_recipe, made, tmp_path / "fine", *wider) == WRONG
    assert "train.model.layers is 9" in " ".join(capsys.readouterr().err.split())
    assert contents(run) == before
    assert train(tiny_recipe, made, run, "--set", "train.steps=7", "--fresh") == 0
    assert read_metrics(run)[-1]["step"] == 7


def test_pictures_are_exported_for_a_judge_again_and_again(tiny_recipe, made, tmp_path, capsys):
    run, prompts, out = tmp_path / "run", tmp_path / "prompts", tmp_path / "out"
    assert train(tiny_recipe, made, run, "--set", "train.steps=1") == 0
    prompts.mkdir()
    (prompts / "0.txt").write_text("a red circle")
    (prompts / "1.txt").write_text("a red circle and a blue square " * 20)
    command = ["eval", "export", str(run), "--for", "dpg", "--prompts", str(prompts)]
    assert call([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"2 pictures for DPG-Bench, 4 drawings in each: {out}"
    assert said[1].startswith("1 of the prompts have more than ")
    assert said[2].endswith(f"bash dpg_bench/dist_eval.sh {out}/images 32")
    before = contents(out)
    assert call([*command, "--out", str(out)]) == 0
    assert contents(out) == before
    (prompts / "0.txt").write_text("a green circle")
    assert call([*command, "--out", str(out)]) == WRONG
    assert "holds other pictures: the prompts was" in " ".join(capsys.readouterr().err.split())
    assert contents(out) == before


def test_two_trainings_of_one_run_do_not_meet(tiny_recipe, made, tmp_path, capsys):
    run = tmp_path / "run"
    with holding(run):
        assert train(tiny_recipe, made, run) == WRONG
    assert f"{run} is being trained by process" in " ".join(capsys.readouterr().err.split())
    assert not (run / METRICS).exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    tiny_recipe, made, tmp_path
):
    run = tmp_path / "run"
    run.mkdir()
    pin_shards(open_manifest(find_shards(open_corpus(made)[1])), run)
    assert train(tiny_recipe, made, run) == 0


def test_the_same_command_resumes_on_the_shards_that_the_run_began_on(
    tiny_recipe, corpus, tmp_path, capsys
):
    run = tmp_path / "run"
    endless = ("--set", "train.steps=100000")
    stop_at_first_line(run / METRICS)
    assert train(tiny_recipe, corpus, run, *endless) == STOPPED
    first = read_metrics(run)[-1]["step"]
    more = tmp_path / "more.yaml"
    more.write_text(tiny_recipe.read_text().replace("num_records: 120", "num_records: 160"))
    assert call(["run", str(more), "--corpus", str(corpus)]) == 0
    shutil.copy(run / METRICS, tmp_path / METRICS)
    stop_at_first_line(run / METRICS, num_lines=first + 1)
    assert train(tiny_recipe, corpus, run, *endless) == STOPPED
    assert [line["step"] for line in read_metrics(run)][: first + 1] == list(range(1, first + 2))
    assert read_metrics(run)[:first] == read_metrics(tmp_path)[:first]
    capsys.readouterr()
