"""What is learnt from a sample: each task makes segments of it, in about ten lines.

A task that finds no use for a sample (no negative was written for it, say) gives None; the sample
then goes to the first task of its stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from trainer.data.samples import Part, Sample
from trainer.data.sequence import Segment
from trainer.settings import TrainSettings

Draw = Callable[[], float]
"""Gives the next number in [0, 1) of a sample."""


def fixed() -> float:
    """The draws for held-out samples: the first task and caption, and the condition stays."""
    return 0.0


class Drawn(NamedTuple):
    """A sample, with what is drawn of it.

    Attributes:
        sample: the sample.
        draw: decides captions, crops, and which conditions are dropped.
        caption_max_tokens: a text next to a picture or a sound is cut after that many ids.
        condition_dropout: share of the texts that are emptied where they are a condition.
    """

    sample: Sample
    draw: Draw
    caption_max_tokens: int
    condition_dropout: float

    def caption(self) -> Segment:
        """Its text, in one of its wordings."""
        texts = (part for part in self.sample.parts if part.options[0].modality == "text")
        return next(texts).drawn(self.draw()).part(0, self.caption_max_tokens)

    def given_caption(self) -> Segment:
        """Its text as a condition, now and then empty, so that the model learns to do without.

        Source: Ho and Salimans, Classifier-Free Diffusion Guidance, arXiv 2207.12598.
        """
        text = self.caption().as_("condition")
        # The upper end of the interval drops, so that `fixed` never does.
        is_dropped = self.draw() >= 1 - self.condition_dropout
        return text._replace(size=0, stop=0) if is_dropped else text

    def coded(self) -> Segment:
        """Its picture or one of the crops, or its sound."""
        return self._coded().drawn(self.draw())

    def given_text(self, texts: Sequence[Segment]) -> Segment:
        """One of some texts, as a condition."""
        text = texts[int(self.draw() * len(texts))]
        return text.part(0, self.caption_max_tokens).as_("condition")

    def views(self) -> Sequence[Segment]:
        """Its picture, and its crops."""
        return self._coded().options

    def _coded(self) -> Part:
        return next(part for part in self.sample.parts if part.options[0].modality != "text")


Task = Callable[[Drawn], list[Segment] | None]


def whole(drawn: Drawn) -> list[Segment]:
    """A text, or pictures and texts as they follow each other; each is whole, however long."""
    return [part.drawn(drawn.draw()) for part in drawn.sample.parts]


def text_to_coded(drawn: Drawn) -> list[Segment]:
    """A picture or a sound after its text."""
    return [drawn.given_caption(), drawn.coded()]


def coded_to_text(drawn: Drawn) -> list[Segment]:
    """The text of a picture or a sound after it."""
    return [drawn.coded().as_("condition"), drawn.caption()]


def negative_to_image(drawn: Drawn) -> list[Segment] | None:
    """A picture after its text, now and then empty, and a text that says what is not in it."""
    return _after_another_text(drawn, drawn.sample.negatives)


def style_to_image(drawn: Drawn) -> list[Segment] | None:
    """A picture after its text, now and then empty, and one that asks for it in another style."""
    return _after_another_text(drawn, drawn.sample.styles)


def image_to_image(drawn: Drawn) -> list[Segment] | None:
    """A whole picture after one of its crops and its text; also after a negative or style text."""
    picture, *crops = drawn.views()
    if not crops:
        return None
    crop = crops[int(drawn.draw() * len(crops))].as_("condition")
    further = [*drawn.sample.negatives, *drawn.sample.styles]
    has_further = further and drawn.draw() >= 1 / 2
    marked = [drawn.given_text(further)] if has_further else []
    return [crop, drawn.given_caption(), *marked, picture]


def _after_another_text(drawn: Drawn, texts: Sequence[Segment]) -> list[Segment] | None:
    """A picture after its text and one of some others, where there are any."""
    if not texts:
        return None
    text = drawn.given_text(texts)
    return [drawn.given_caption(), text, drawn.coded()]


def infill(drawn: Drawn) -> list[Segment]:
    """A stretch of a picture's codes after its text and the codes around them."""
    picture = drawn.coded()
    start = int(drawn.draw() * picture.size)
    stop = start + 1 + int(drawn.draw() * (picture.size - start))
    return [
        drawn.given_caption(),
        picture.part(0, start).as_("condition"),
        picture.part(start, stop).as_("hidden"),
        picture.part(stop, picture.size).as_("condition"),
        picture.part(start, stop),
    ]


TASKS: dict[str, dict[str, Task]] = {
    "text": {"text_alone": whole},
    "image": {
        "text_to_image": text_to_coded,
        "image_to_text": coded_to_text,
        "negative_to_image": negative_to_image,
        "style_to_image": style_to_image,
        "image_to_image": image_to_image,
        "infill": infill,
    },
    "mixed": {"interleaved": whole},
    "audio": {"text_to_sound": text_to_coded, "sound_to_text": coded_to_text},
}
"""The tasks of each stream by name, the plainest first. A name has one stream."""

STREAM_OF_TASK = {task: stream for stream, tasks in TASKS.items() for task in tasks}
"""The stream of each task, those of one stream one after another."""


class Chooser:
    """Decides what is learnt from each sample of a stream."""

    def __init__(self, settings: TrainSettings, stream: str) -> None:
        """Take the shares of the stream's tasks from `train.tasks`."""
        self._tasks = TASKS[stream]
        asked = getattr(settings.tasks, stream, None)
        weights = [1.0 if asked is None else getattr(asked, name) for name in self._tasks]
        self._upto = [sum(weights[: n + 1]) / sum(weights) for n in range(len(weights))]
        self._max_tokens = settings.caption_max_tokens
        self._dropout = settings.condition_dropout

    def segments(self, sample: Sample, draw: Draw) -> tuple[str, list[Segment]]:
        """The name of the task that is drawn for a sample, and the segments that it makes."""
        chosen = 0.0 if len(self._tasks) == 1 else draw()
        names = list(self._tasks)
        at = next((n for n, upto in enumerate(self._upto) if chosen < upto), 0)
        drawn = Drawn(sample, draw, self._max_tokens, self._dropout)
        for name in (names[at], names[0]):
            segments = self._tasks[name](drawn)
            if segments is not None:
                return name, segments
        message = f"the task {names[0]} takes every sample"
        raise AssertionError(message)
