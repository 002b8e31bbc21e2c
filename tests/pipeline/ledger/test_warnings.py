from jobs.run import open_corpus
from pipeline.engine.storage import commit_json, read_json
from pipeline.ledger.status import status
from pipeline.ledger.warnings import warnings


def test_a_score_that_tells_nothing_is_warned_of_and_a_good_one_is_not(root):
    corpus = open_corpus(root)[1]
    (warning,) = warnings(corpus)
    assert "too weak to filter by" in warning
    path = corpus.models["cuts"] / "calibration.json"
    commit_json(path, {**read_json(path), "is_weak": False})
    assert warnings(corpus) == []


def test_status_tells_the_calibration_and_the_warnings(root):
    corpus = open_corpus(root)[1]
    state = status(corpus)
    assert state["warnings"] == warnings(corpus)
    assert 0 <= state["calibration"]["auc"]["value"] <= 1
    assert set(state["calibration"]["cut"]) == {"value", "low", "high"}
