import pytest

from jobs import cli
from jobs.run import open_corpus
from jobs.what_if import what_if
from pipeline.errors import UserError
from tests.jobs.corpora import files_of, run


def selected(root):
    """The records and texts that a corpus keeps, and its rejects by reason."""
    _, corpus = open_corpus(root)
    texts = corpus.query("SELECT record_id, variant_id FROM selection").fetchall()
    reasons = corpus.query(
        "SELECT reason, count(*) FILTER (variant_id IS NULL), count(variant_id)"
        " FROM rejects WHERE stage = 'select' GROUP BY ALL"
    ).fetchall()
    return {record for record, _ in texts}, set(texts), sorted(reasons)


@pytest.mark.parametrize(
    "change",
    [
        "clip_score.quantile=0.4",
        "clip_score={min: -2}",
        "clip_score.within=source",
        "any=[{clip_score: {min: 0.9}}, {caption_quality: {quantile: 0.5}}]",
        "top={score: clip_score, most: 30, within: source}",
        "drop_duplicates=false",
    ],
)
def test_what_if_says_what_a_run_then_does(corpus, load, change):
    before = selected(corpus)
    said = what_if(corpus, [change])
    key = change if change.startswith(("any", "top", "drop")) else f"rules.{change}"
    run(load(f"select.{key}"), corpus, until="select")
    after = selected(corpus)
    for number, what in enumerate(("records", "texts")):
        counts = said[what]
        assert counts["kept"] == len(before[number])
        assert counts["would_be"] == len(after[number])
        assert counts["lost"] == len(before[number] - after[number])
        assert counts["gained"] == len(after[number] - before[number])
    for rejects, names in (
        (before[2], ("records", "texts")),
        (after[2], ("records_would_be", "texts_would_be")),
    ):
        told = [(row["reason"], *(row[name] for name in names)) for row in said["by_reason"]]
        assert [row for row in told if any(row[1:])] == rejects
    assert sum(row["would_be"] for row in said["by_source"]) == said["records"]["would_be"]
    lost = {(row["record_id"], row["variant_id"]) for row in said["lost"]}
    assert lost <= before[1] - after[1]
    assert bool(lost) == bool(said["texts"]["lost"])


def test_what_if_changes_nothing_and_shows_texts_with_their_scores(corpus):
    before = files_of(corpus)
    said = what_if(corpus, ["clip_score.quantile=0.5"])
    assert files_of(corpus) == before
    example = said["lost"][0]
    assert example["text"]
    assert example["reason"] == "clip-score-below-threshold"
    assert "the cut of the lowest 50 %" in example["why"]
    assert example["clip_score"] == example["score"] < example["threshold"]
    assert said["limits"] != said["limits_would_be"]


def test_what_if_takes_the_cuts_that_are_pinned(corpus, load):
    run(load("select.rules.clip_score.quantile=0.5"), corpus, until="select")
    run(load(), corpus, until="select")
    said = what_if(corpus, ["clip_score.quantile=0.5"])
    ((cut,),) = {(row["threshold"],) for row in said["lost"]}
    assert said["limits_would_be"][1] == f"clip_score: at least {cut:.3g}"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("clip.quantile=0.3", "there is no score 'clip'; allowed are "),
        ("clip_score.quantil=0.3", "Allowed here: min, max, quantile"),
        ("clip_score.quantile=3", "less than 1"),
        ("clip_score.min=0.3", "min and quantile set the lower limit: keep one"),
        ("top.share=3", "select.top"),
        ("clip_score", "not of the form key=value"),
    ],
)
def test_a_wrong_change_names_what_is_allowed(made, change, part):
    with pytest.raises(UserError) as error:
        what_if(made, [change])
    assert part in str(error.value)


def test_a_corpus_without_a_selection_is_told_to_make_one(tiny_recipe, load, tmp_path):
    run(load(), tmp_path / "begun", until="ingest")
    with pytest.raises(UserError, match="--until select"):
        what_if(tmp_path / "begun", ["clip_score.quantile=0.3"])


def test_the_command_prints_limits_counts_and_examples(made, capsys):
    assert cli.call(["select", str(made), "--what-if", "clip_score.quantile=0.5"]) == 0
    said = capsys.readouterr().out
    assert "clip_score: at least" in said
    assert "lost: " in said
    assert "shapes" in said
