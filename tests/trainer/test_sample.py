import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from pipeline.errors import UserError
from tests.trainer.conftest import GRID, Squares, square
from tests.trainer.test_engine import AUDIO, random_model, uncached
from tokenizer_cache.text import describe_text, load_text
from tokenizer_cache.vocabulary import build_vocabulary
from tokenizer_cache.vq.description import describe_vq
from trainer.data.sequence import codes_of, ids_of, text_segment
from trainer.generate.sample import (
    Given,
    contact_sheet,
    describe,
    describe_codes,
    draw,
    draw_codes,
    make_sounds,
    stream_codes,
    write_on,
)
from trainer.generate.settings import PickSettings, SampleSettings, TextPickSettings
from trainer.run import Run
from trainer.settings import ImageTaskSettings, TaskSettings, TrainSettings

SETTINGS = SampleSettings(image=PickSettings(temperature=0.5), cfg_scale=2.0)
PLAIN = SampleSettings(image=PickSettings(temperature=0), cfg_scale=1)
"""Greedy and without guidance."""


@pytest.fixture(scope="module")
def untrained(squares: Squares) -> Run:
    """A model with random weights for texts, pictures and sounds, that has learnt every task."""
    vocabulary = build_vocabulary(
        describe_text(squares.models["text"]), describe_vq(squares.models["vq"]), AUDIO
    )
    tasks = dict.fromkeys(ImageTaskSettings.model_fields, 1.0)
    settings = TrainSettings(tasks=TaskSettings(image=ImageTaskSettings(**tasks)), seq_len=64)
    return Run(
        folder=squares.shards, settings=settings, step=0, model=random_model(vocabulary),
        vocabulary=vocabulary, text=load_text(squares.models["text"]), vq=None, audio=None,
        device=torch.device("cpu"),
    )  # fmt: skip


def test_pictures_are_whole_grids_of_image_codes_also_without_training(trained: Run) -> None:
    wild = SampleSettings(image=PickSettings(temperature=50.0, top_k=1000))
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
    hot = SETTINGS.model_copy(update={"image": PickSettings(temperature=3.0)})
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
    one = contact_sheet(trained, {"held out": [pair] * 3}, SETTINGS)
    both = contact_sheet(trained, {"held out": [pair] * 3, "trained": [pair]}, SETTINGS)
    assert one.width == both.width > 2 * 3 * 128
    assert both.height > one.height + 128
    assert contact_sheet(trained, {"held out": []}, SETTINGS).width > 2 * 3 * 128


def test_pictures_of_a_second_batch_have_the_numbers_that_they_have(untrained: Run) -> None:
    """The prompts of unlike lengths are padded to others in each batch."""
    prompts = [f"a square {'of colour ' * (number % 5)}" for number in range(35)]
    settings = SampleSettings()
    together = draw_codes(untrained, prompts, settings)
    for number in (0, 31, 34):
        alone = [*stream_codes(untrained, [prompts[number]], settings, first=number)]
        assert together[number].ravel().tolist() == np.concatenate(alone).tolist()


def test_codes_come_step_by_step_and_are_those_of_the_picture(untrained: Run) -> None:
    prompts = ["a red square", "a circle"]
    steps = stream_codes(untrained, prompts, PLAIN)
    first = next(steps)
    assert (first.shape, first.dtype) == ((2,), np.int64)
    codes = np.stack([first, *steps], axis=1).reshape(2, *GRID)
    assert np.array_equal(codes, draw_codes(untrained, prompts, PLAIN))


def test_greedy_codes_are_the_likeliest_of_the_model_without_a_cache(untrained: Run) -> None:
    codes = draw_codes(untrained, ["a red square"], PLAIN)[0]
    held, writer = untrained.vocabulary.image, untrained.writer
    condition = untrained.caption("a red square")
    whole = writer.write([condition, untrained.picture(codes)])
    first = len(writer.prompt([condition], "image").tokens)
    logits = uncached(untrained.model, whole)[first - 1 : first - 1 + codes.size]
    assert logits[:, held.start : held.stop].argmax(dim=1).tolist() == codes.ravel().tolist()


def first_logits(run: Run, *texts: str, mark: str | None = None) -> torch.Tensor:
    """Of the first code of a picture after some texts; the mark is before the last."""
    captions = [run.caption(text) for text in texts]
    prompt = run.writer.prompt([*captions[:-1], captions[-1]._replace(mark=mark)], "image")
    held = run.vocabulary.image
    return uncached(run.model, prompt)[-1, held.start : held.stop]


@pytest.mark.parametrize("negative", ["", "blurred"])
def test_guidance_leads_away_from_the_negative_where_the_empty_text_was(
    untrained: Run, negative: str
) -> None:
    """Also on a model that has learnt no negatives."""
    run = replace(untrained, settings=TrainSettings())
    for scale in (0.0, 2.0, 5.0):
        settings = PLAIN.model_copy(update={"cfg_scale": scale})
        given, free = first_logits(run, "a red square"), first_logits(run, negative)
        code = next(stream_codes(run, ["a red square"], settings, Given(negative=negative)))
        assert code.item() == (free + scale * (given - free)).argmax().item()


def test_a_model_that_has_learnt_negatives_is_told_them_as_well(untrained: Run) -> None:
    said = first_logits(untrained, "a red square", "blurred", mark="<negative>")
    free = first_logits(untrained, "blurred")
    code = next(stream_codes(untrained, ["a red square"], PLAIN, Given(negative="blurred")))
    assert code.item() == said.argmax().item()
    settings = PLAIN.model_copy(update={"cfg_scale": 4.0})
    code = next(stream_codes(untrained, ["a red square"], settings, Given(negative="blurred")))
    assert code.item() == (free + 4 * (said - free)).argmax().item()


def test_a_negative_without_an_effect_is_an_error(trained: Run) -> None:
    with pytest.raises(UserError, match="has no effect"):
        draw_codes(trained, ["a red square at the left"], PLAIN, Given(negative="blurred"))


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_infilling_changes_the_hidden_codes_alone(untrained: Run, cfg_scale: float) -> None:
    picture = np.arange(16, dtype=np.uint16).reshape(GRID) % 8
    hidden = np.zeros(GRID, bool)
    hidden[1:3, 1:3] = True
    hot = SampleSettings(cfg_scale=cfg_scale, image=PickSettings(temperature=9.0))
    given = Given(picture=picture, hidden=hidden)
    drawn = draw_codes(untrained, ["", "a square", "a circle"], hot, given)
    assert drawn.shape == (3, *GRID)
    assert (drawn[:, ~hidden] == picture[~hidden]).all()
    assert (drawn[:, hidden] != picture[hidden]).any()
    assert len([*stream_codes(untrained, ["a square"], hot, given)]) == 6


def test_infilling_draws_what_is_likeliest_between_the_codes_around_it(untrained: Run) -> None:
    picture = np.arange(16, dtype=np.uint16).reshape(GRID) % 8
    hidden = np.zeros(GRID, bool)
    hidden[1, 1:3] = True
    drawn = draw_codes(untrained, ["a square"], PLAIN, Given(picture=picture, hidden=hidden))[0]
    whole, text = untrained.picture(drawn), untrained.caption("a square")
    around = [whole.part(0, 5), whole.part(5, 7).as_("hidden"), whole.part(7, 16)]
    written = untrained.writer.write([text, *around, whole.part(5, 7)], ends=False)
    held = untrained.vocabulary.image
    logits = uncached(untrained.model, written)[-4:-2, held.start : held.stop]
    assert logits.argmax(dim=1).tolist() == drawn[1, 1:3].tolist()


def test_a_picture_is_drawn_around_another(untrained: Run) -> None:
    one, other = np.zeros((1, *GRID), np.uint16), np.ones((1, *GRID), np.uint16)
    drawn = [
        draw_codes(untrained, ["a square"], PLAIN, Given(picture=each[0])) for each in (one, other)
    ]
    assert not np.array_equal(*drawn)


@pytest.mark.parametrize("hidden", [None, np.ones(GRID, bool)], ids=["image_to_image", "infill"])
def test_a_task_that_was_not_learnt_is_an_error(trained: Run, hidden: np.ndarray | None) -> None:
    given = Given(picture=np.zeros(GRID, np.uint16), hidden=hidden)
    with pytest.raises(UserError, match=f"without the task {given.task}"):
        draw_codes(trained, ["a square"], PLAIN, given)


def test_a_sound_has_whole_frames_with_the_codes_of_their_codebooks(untrained: Run) -> None:
    prompts = ["a bell", "rain", "a much longer text about a sound"]
    sounds = make_sounds(untrained, prompts, SampleSettings())
    assert len(sounds) == 3
    for codes in sounds:
        assert codes.shape[0] >= 1
        assert codes.shape[1] == 2
        assert codes.min() >= 0
        assert codes.max() < 4
    assert np.array_equal(make_sounds(untrained, prompts[:1], SampleSettings())[0], sounds[0])


def test_a_run_without_sounds_makes_none(trained: Run) -> None:
    with pytest.raises(UserError, match="was trained without sounds"):
        make_sounds(trained, ["a bell"], SampleSettings())


def test_documents_are_continued_with_the_modalities_that_are_asked_for(untrained: Run) -> None:
    text = untrained.caption("a red square")
    picture = untrained.picture(np.zeros(GRID, np.uint16))
    hot = SampleSettings(text=TextPickSettings(temperature=5.0, top_k=1000))
    for opens in (("image",), ("text", "image"), ("text", "image", "audio")):
        found = write_on(
            untrained, [[text], [text, picture]] * 4, hot, opens=opens, max_new_tokens=60
        )
        modalities = {segment.modality for segments in found for segment in segments}
        assert modalities <= set(opens)
        assert "image" in modalities
        for segment in (each for segments in found for each in segments):
            assert (
                segment.modality != "image" or codes_of(segment, untrained.vocabulary).shape == GRID
            )


def test_a_picture_after_which_its_text_follows_is_learnt(trained: Run) -> None:
    """The squares' documents have a picture, its text, and the same again."""
    text, codes = square(3)
    picture = trained.picture(codes)
    (found,) = write_on(trained, [[picture]], PLAIN, opens=("text", "image"), max_new_tokens=80)
    assert [each.modality for each in found] == ["text", "image", "text"]
    assert trained.text.decode(ids_of(found[0]).tolist()) == text
    (same,) = write_on(trained, [[picture]], PLAIN, following="text", max_new_tokens=80)
    assert ids_of(same[0]).tolist() == ids_of(found[0]).tolist()
    assert len(same) == 1


def test_what_a_text_segment_says_decides_how_a_document_is_continued(untrained: Run) -> None:
    one, other = (text_segment([number], untrained.vocabulary) for number in (1, 2))
    found = write_on(untrained, [[one], [other]], PLAIN, following="image", max_new_tokens=20)
    assert all(len(segments) == 1 for segments in found)
    assert ids_of(found[0][0]).tolist() != ids_of(found[1][0]).tolist()


def test_the_keys_of_earlier_recipes_are_read() -> None:
    read = SampleSettings.model_validate(
        {"temperature": 0.5, "top_k": 7, "caption_temperature": 0.2, "cfg_scale": 2.0}
    )
    assert read.image == PickSettings(temperature=0.5, top_k=7)
    assert (read.text.temperature, read.text.top_k) == (0.2, 7)
    assert read.audio == SampleSettings().audio
    assert SampleSettings.model_validate(read.model_dump()) == read
    assert SampleSettings.model_validate({"text": {"top_p": 0.9}}).text.temperature == 0
    both = {"temperature": 0.5, "image": {"temperature": 1.0}}
    with pytest.raises(ValidationError, match="both are given"):
        SampleSettings.model_validate(both)
