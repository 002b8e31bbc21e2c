import pyarrow as pa

from jobs.run import open_corpus
from pipeline.engine.schemas import ANSWERS, REJECTS, reject
from pipeline.engine.storage import commit_json, read_json
from pipeline.engine.tables import write_table
from pipeline.ledger.losses import losses
from pipeline.ledger.status import status
from pipeline.ledger.warnings import warnings


def test_a_score_that_tells_nothing_is_warned_of_and_a_good_one_is_not(root):
    corpus = open_corpus(root)[1]
    (warning,) = warnings(corpus)
    assert "too weak to filter by" in warning
    path = corpus.models["cuts"] / "calibration.json"
    commit_json(path, {**read_json(path), "is_weak": False})
    assert warnings(corpus) == []


def test_a_kind_of_text_of_which_none_was_taken_is_told_with_the_reason(root):
    corpus = open_corpus(root)[1]
    part, path = next(iter(corpus.tables["answers"].items()))
    row = dict.fromkeys(ANSWERS.names, 1) | {
        field.name: "-" for field in ANSWERS if pa.types.is_string(field.type)
    }
    row |= {"kind": "negative", "role": "write", "forms": []}
    write_table(path, [row, row], ANSWERS)
    refused = reject(record_id="r", stage="synthesize", reason="synthesis-empty", detail="nothing")
    write_table(corpus.rejects["synthesize"][part], [refused | {"kind": "negative"}], REJECTS)
    assert losses(corpus) == [
        "no text of the kind `negative` was taken from 2 answers: 1 texts were refused, all for"
        " synthesis-empty, e.g. nothing"
    ]


def test_status_tells_the_calibration_and_the_warnings(root):
    corpus = open_corpus(root)[1]
    state = status(corpus)
    assert state["warnings"] == warnings(corpus)
    assert 0 <= state["calibration"]["auc"]["value"] <= 1
    assert set(state["calibration"]["cut"]) == {"value", "low", "high"}
