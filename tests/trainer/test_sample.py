import io

import numpy as np
from PIL import Image

from tests.trainer.conftest import GRID, square
from trainer.generate.sample import contact_sheet, describe, describe_codes, draw, draw_codes
from trainer.run import Run
from trainer.settings import SampleSettings

SETTINGS = SampleSettings(temperature=0.5, cfg_scale=2.0)


def test_pictures_are_whole_grids_of_image_codes_also_without_training(trained: Run) -> None:
    wild = SampleSettings(temperature=50.0, top_k=1000)
    codes = draw_codes(trained, ["nothing that was ever seen", ""], wild)
    assert codes.shape == (2, *GRID)
    assert codes.dtype == np.uint16
    assert codes.max() < trained.vocabulary.image.size


def test_most_squares_are_drawn_as_their_text_says(trained: Run) -> None:
    texts, targets = zip(*(square(number) for number in range(16)), strict=True)
    drawn = draw_codes(trained, texts, SETTINGS)
    assert (drawn == np.stack(targets)).mean() > 0.8


def test_a_picture_depends_on_its_seed_and_not_on_the_other_prompts(trained: Run) -> None:
    texts = [square(number)[0] for number in range(4)]
    together = draw_codes(trained, texts, SETTINGS)
    assert np.array_equal(draw_codes(trained, texts[:1], SETTINGS), together[:1])
    hot = SETTINGS.model_copy(update={"temperature": 3.0})
    other = hot.model_copy(update={"seed": 1})
    assert not np.array_equal(draw_codes(trained, texts, hot), draw_codes(trained, texts, other))


def test_most_squares_are_read_as_their_text(trained: Run) -> None:
    texts, codes = zip(*(square(number) for number in range(16)), strict=True)
    read = describe_codes(trained, np.stack(codes), SETTINGS)
    assert np.mean([one == other for one, other in zip(read, texts, strict=True)]) > 0.8


def test_pictures_and_texts_come_back_for_every_input(trained: Run) -> None:
    pictures = draw(trained, ["a red square at the left"] * 40, SETTINGS)
    assert [picture.size for picture in pictures] == [(16, 16)] * 40
    assert len(describe(trained, pictures, SETTINGS)) == 40
    assert draw(trained, [], SETTINGS) == []
    assert describe(trained, [], SETTINGS) == []


def test_a_sheet_is_made_from_texts_and_encoded_images(trained: Run) -> None:
    content = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(content, "PNG")
    pair = ("a red square at the left", content.getvalue())
    assert contact_sheet(trained, [pair] * 3, SETTINGS).width > 2 * 3 * 128
    assert contact_sheet(trained, [], SETTINGS).width > 2 * 3 * 128
