"""What `--dry-run` says before a run, against what the run then does."""

from pathlib import Path

import pytest

from jobs.dry_run import plan
from jobs.recipe import load_recipe
from pipeline.errors import UserError
from tests.jobs.corpora import faults, files_of, run


def planned(recipe, root, **how):
    """For each step with something to do: its parts and its reasons."""
    return {
        step.step: (step.parts, step.reasons) for step in plan(recipe, root, **how) if step.reasons
    }


def test_nothing_changed_means_nothing_to_do(corpus, load):
    assert not planned(load(), corpus)


def test_a_dry_run_touches_nothing(load, tmp_path):
    steps = planned(load(), tmp_path / "none")
    assert steps["ingest"] == (4, ("4 parts of the sources are new or changed",))
    assert steps["vq"] == (0, ("it has not been fitted yet",))
    assert not Path(tmp_path / "none").exists()


def test_a_changed_threshold_is_named_with_its_old_and_new_value(corpus, load):
    steps = planned(load("select.rules.caption_quality.min=0.5"), corpus)
    assert steps.keys() == {"select", "shards"}
    reasons = steps["select"][1]
    assert reasons == ("settings.rules.caption_quality.min: 1.0 -> 0.5",)


def test_new_records_are_told_with_the_parts_that_they_make(corpus, load):
    recipe = load("sources.0.num_records=160")
    steps = planned(recipe, corpus)
    assert steps["ingest"] == (1, ("1 parts of the sources are new or changed",))
    assert {"ingest", "synthesize", "score", "tokenize"} <= steps.keys()
    assert not {"clip", "vq", "cuts", "text"} & steps.keys()
    said = run(recipe, corpus)
    assert "ingest         40 rows in 1 parts (4 unchanged)" in said


def test_a_lost_file_is_told_as_not_committed(corpus, load):
    next((corpus / "tables" / "tokens").rglob("*.parquet")).unlink()
    parts, (reason,) = planned(load(), corpus)["tokenize"]
    assert parts == 1
    assert "not committed" in reason


def test_a_refit_is_told_with_what_it_moves(corpus, load):
    steps = planned(load(), corpus, refit=["cuts"])
    assert steps["cuts"] == (0, ("--refit cuts",))
    assert steps["select"] == (4, ("model `cuts` is fitted anew",))


def test_a_changed_text_tokenizer_writes_all_shards_anew(corpus, load):
    steps = planned(load("text_tokenizer.vocab_size=420"), corpus)
    assert steps["text"] == (0, ("settings.vocab_size: 400 -> 420",))
    assert steps["shards"] == (4, ("model `text` is fitted anew",))


def test_a_dry_run_ends_where_the_run_would(load, tmp_path):
    steps = plan(load(), tmp_path / "none", until="synthesize")
    assert [step.step for step in steps] == ["ingest", "synthesis", "ask", "synthesize"]
    with pytest.raises(UserError, match="there is no stage 'synthesise'"):
        plan(load(), tmp_path / "none", until="synthesise")
    with pytest.raises(UserError, match="no fitted model 'vqq'"):
        plan(load(), tmp_path / "none", refit=["vqq"])


def test_a_run_until_a_step_keeps_what_decided_the_steps_below(corpus, load):
    changed = load("select.rules.caption_quality.min=0.5")
    run(changed, corpus, until="score")
    (reason,) = planned(changed, corpus)["select"][1]
    assert reason == "settings.rules.caption_quality.min: 1.0 -> 0.5"


def test_a_refit_makes_a_new_generation_and_stays(corpus, load):
    before = files_of(corpus)
    said = run(load("sources.0.num_records=200"), corpus, refit=["cuts"])
    assert "fit cuts" in said
    generations = sorted(path.name for path in (corpus / "models" / "cuts").iterdir())
    assert len(generations) == 2
    assert generations[1] == f"{generations[0]}-2"
    again = run(load("sources.0.num_records=200"), corpus)
    assert again.count("nothing has changed") == 16
    after = files_of(corpus)
    assert all(after[name] == before[name] for name in before if name.startswith("models/"))
    assert not faults(corpus)


def test_an_unknown_model_cannot_be_fitted_anew(corpus, load):
    with pytest.raises(UserError, match="no fitted model 'vqq'"):
        run(load(), corpus, refit=["vqq"])


def test_a_column_that_is_not_there_is_named_by_a_dry_run_too(tmp_path):
    (tmp_path / "pairs.csv").write_text("caption,image\none,1.png\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "{name: r, sources: [{kind: table, path: pairs.csv, caption_columns: [captoin]}]}"
    )
    with pytest.raises(UserError, match=r"no column 'captoin' in .*\n.*mean 'caption'\?"):
        plan(load_recipe(recipe), tmp_path / "none")
