"""What each task makes of a sample."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from tests.trainer.conftest import GRID, Squares
from tests.trainer.test_documents import Written, changed, texts
from trainer.data.order import Draws
from trainer.data.packing import unpack
from trainer.settings import LossSettings, TrainSettings

WHOLE, CROP = np.full(GRID, 1, np.uint16), np.full(GRID, 2, np.uint16)
PICTURE = np.arange(16, dtype=np.uint16).reshape(1, *GRID) % 8
SAID, ABSENT, STYLED = "a red square", "no circle", "as ink, a square"
SAMPLE = ([{"text": SAID}], WHOLE[None], {"negative": ABSENT, "style": STYLED})


def doing(task: str, **changes: object) -> TrainSettings:
    """Settings under which all samples of the image stream go to one task."""
    return changed(tasks={"image": {"text_to_image": 0, task: 1}}, **changes)


def words(document: list[str | int]) -> list[str]:
    return [word for word in document if isinstance(word, str)]


@pytest.mark.parametrize(
    ("task", "mark", "text"),
    [("negative_to_image", "<negative>", ABSENT), ("style_to_image", "<style>", STYLED)],
)
def test_what_a_picture_does_not_show_is_a_condition_of_its_own(
    squares: Squares, tmp_path: Path, task: str, mark: str, text: str
) -> None:
    written = Written(tmp_path, squares, SAMPLE)
    settings = doing(task, loss=LossSettings(condition=0))
    (document,), (row,) = written.rows(settings)
    (shown,) = written.documents(settings)
    given = ["<txt>", SAID, "</txt>", mark, "<txt>", text, "</txt>"]
    assert words(shown) == [*given, "<img>", "</img>", "<eos>"]
    assert document.task == row.tasks[0] == task
    first = row.tokens.tolist().index(written.manifest.vocabulary.special("<img>"))
    assert not row.weights[: first - 1].any()
    assert row.weights[first - 1 : document.length - 1].all()


def test_a_negative_stands_alone_where_the_caption_is_dropped(
    squares: Squares, tmp_path: Path
) -> None:
    written = Written(tmp_path, squares, *[SAMPLE] * 20)
    settings = doing("negative_to_image", condition_dropout=0.5)
    shown = Counter(words(each)[1] for each in written.documents(settings, draws=Draws(0, "image")))
    assert set(shown) == {SAID, "</txt>"}


def test_a_sample_without_what_a_task_needs_goes_to_the_plainest_task(
    squares: Squares, tmp_path: Path
) -> None:
    written = Written(tmp_path, squares, [texts(SAID), WHOLE], SAMPLE)
    for task in ("negative_to_image", "style_to_image", "image_to_image"):
        (plain, own), _ = written.rows(doing(task))
        assert plain.task == "text_to_image"
        assert own.task == ("text_to_image" if task == "image_to_image" else task)


def test_an_index_of_earlier_versions_has_no_such_texts_and_is_read(
    squares: Squares, tmp_path: Path
) -> None:
    for name, sample in (("without", [texts(SAID), WHOLE[None]]), ("with", SAMPLE)):
        index = Written(tmp_path / name, squares, sample).files.index(0)
        with pa.memory_map(str(tmp_path / name / "a.index")) as file:
            columns = pa.ipc.open_file(file).schema.names
        assert columns == ["key", "segments", *(["variants"] if name == "with" else [])]
        assert index.first_variant.tolist() == [0, 2 if name == "with" else 0]


def test_a_whole_picture_follows_its_crop(squares: Squares, tmp_path: Path) -> None:
    views = np.stack([WHOLE, CROP])
    written = Written(tmp_path, squares, *[[texts(SAID), views, {"negative": ABSENT}]] * 20)
    shown = written.documents(doing("image_to_image"), draws=Draws(0, "image"))
    for document in shown:
        codes = [each for each in document if isinstance(each, int)]
        assert codes == [2] * 16 + [1] * 16
        assert words(document)[:5] == ["<img>", "</img>", "<txt>", SAID, "</txt>"]
    marked = sum("<negative>" in words(each) for each in shown)
    assert 4 < marked < 16


def test_hidden_codes_follow_the_picture_around_them(squares: Squares, tmp_path: Path) -> None:
    written = Written(tmp_path, squares, *[[texts(SAID), PICTURE]] * 30)
    _, rows = written.rows(doing("infill", loss=LossSettings(condition=0)), draws=Draws(0, "image"))
    image = written.manifest.vocabulary.image
    sizes = set()
    for row in rows:
        (ids,) = unpack(row)
        is_code = [n for n, token in enumerate(ids) if token in range(image.start, image.stop)]
        codes = {int(row.places[n]) - 2: ids[n] - image.start for n in is_code}
        assert [codes[place] for place in range(16)] == PICTURE.ravel().tolist()
        learnt = [n for n in is_code if row.weights[n - 1]]
        places = row.places[learnt].tolist()
        assert places == list(range(places[0], places[0] + len(places)))
        assert row.places[learnt[0] - 1] == places[0] - 1  # the bracket says where they begin
        sizes.add(len(learnt))
    assert len(sizes) > 5


def test_tasks_have_their_shares(squares: Squares, tmp_path: Path) -> None:
    written = Written(tmp_path, squares, *[SAMPLE] * 600)
    tasks = {"text_to_image": 3, "image_to_text": 2, "negative_to_image": 1}
    documents, _ = written.rows(changed(tasks={"image": tasks}), draws=Draws(0, "image"))
    found = Counter(document.task for document in documents)
    assert set(found) == set(tasks)
    assert found["text_to_image"] == pytest.approx(300, abs=45)
    assert found["negative_to_image"] == pytest.approx(100, abs=35)


def test_the_share_of_the_second_task_may_be_said_as_corpora_of_earlier_versions_do() -> None:
    tasks = TrainSettings.model_validate({"image_to_text": 0.25}).tasks
    assert (tasks.image.text_to_image, tasks.image.image_to_text) == (0.75, 0.25)
    assert (tasks.audio.text_to_sound, tasks.audio.sound_to_text) == (0.75, 0.25)
    assert TrainSettings.model_validate({"image_to_text": 0.0}) == TrainSettings()
    with pytest.raises(ValidationError, match="at least one of text_to_image, image_to_text"):
        changed(tasks={"image": {"text_to_image": 0}})
