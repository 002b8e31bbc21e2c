from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from filters.duplicates.evaluation import fit
from filters.duplicates.settings import DuplicateSettings, EvaluationSettings
from filters.perceptual import perceptual_hash, pixel_hash
from pipeline.engine.stage import FitInputs
from pipeline.errors import UserError
from tests.filters.duplicates.corpus import duplicates, write_corpus


def scene(seed):
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(patches).resize((96, 96))


def record(record_id, image, **what):
    hashes = {
        "pixel_hash": pixel_hash(image),
        "perceptual_hash": perceptual_hash(image.convert("L")),
    }
    return {"record_id": record_id, "image_id": record_id, **hashes, **what}


@pytest.fixture
def sets(tmp_path):
    for name, seeds in {"coco": (1, 2), "flickr": (2, 3)}.items():
        (tmp_path / name).mkdir()
        for seed in seeds:
            scene(seed).save(tmp_path / name / f"{seed}.png")
            (tmp_path / name / f"{seed}.txt").write_text("some patches")
    (tmp_path / "coco" / "broken.png").write_bytes(b"\x89PNG\r\n")
    return [{"kind": "folder", "name": n, "path": str(tmp_path / n)} for n in ("coco", "flickr")]


@pytest.fixture
def inputs(sets, tmp_path):
    settings = EvaluationSettings(against=DuplicateSettings(against=sets).against, clip=None)
    folder = tmp_path / "evaluation"
    *_, last = fit(settings, FitInputs(tables={}, models={}), folder)
    assert last.figures == {"pictures": 4, "unreadable": 1}
    records = [
        record("same", scene(1)),
        record("better", scene(2), width=500),
        record("copy-of-better", scene(2).resize((60, 60))),
        record("small", scene(3).resize((48, 48))),
        record("own", scene(4), width=500),
        record("copy-of-own", scene(4).resize((60, 60))),
    ]
    return write_corpus(tmp_path, [records[:3], records[3:]], models={"evaluation": folder})


def test_copies_of_an_evaluation_set_leave_whatever_their_size(inputs, sets):
    found = duplicates(inputs, against=sets, perceptual=0.15)
    told = {
        record: (row["duplicate_of"], row["method"], row["rule"]) for record, row in found.items()
    }
    assert told == {
        "same": ("coco/1.png", "evaluation", "evaluation"),
        "better": ("coco/2.png", "evaluation", "evaluation"),
        "copy-of-better": ("coco/2.png", "evaluation", "evaluation"),
        "small": ("flickr/3.png", "evaluation", "evaluation"),
        "copy-of-own": ("own", "perceptual", "resolution"),
    }
    assert found["same"]["distance"] == found["same"]["threshold"] == 0
    assert 0 < found["small"]["distance"] < found["small"]["threshold"]


def test_without_a_perceptual_distance_equal_pixels_alone_leave(inputs, sets):
    assert duplicates(inputs, against=sets).keys() == {"same", "better"}


def test_sets_that_are_not_named_take_nothing(inputs):
    assert duplicates(replace(inputs, models={}), perceptual=0.15).keys() == {
        "copy-of-better",
        "copy-of-own",
    }


def test_a_set_without_pictures_is_an_error(tmp_path, sets):
    (tmp_path / "empty").mkdir()
    empty = {"kind": "folder", "name": "empty", "path": str(tmp_path / "empty")}
    settings = EvaluationSettings(against=[*sets, empty], clip=None)
    with pytest.raises(UserError, match="no picture of 'empty'"):
        list(fit(settings, FitInputs(tables={}, models={}), tmp_path / "evaluation"))


def test_two_sets_have_two_names(sets):
    with pytest.raises(ValueError, match="two evaluation sets have the same name"):
        DuplicateSettings(against=[sets[0], sets[0]])
