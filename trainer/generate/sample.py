"""Pictures and sounds from texts, texts from pictures, and documents of all of them.

Legend: B prompts, G codes of a picture, h w code grid, n q frames and codebooks of a sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.errors import UserError
from pipeline.images import decode
from pipeline.progress import counting
from tokenizer_cache.code_order import to_grid, to_sequence
from trainer.data.sequence import Segment, Written, codes_of, ids_of, read_document
from trainer.generate.engine import Start, tokens_as_they_come
from trainer.generate.grammar import BETWEEN, ENDED, Grammar, State
from trainer.generate.settings import SampleSettings
from trainer.generate.sheet import SheetEntry, render_sheet
from trainer.run import Run

_BATCH = 32
"""Prompts at a time; bounds the memory of keys and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What pictures are drawn from besides their texts.

    Attributes:
        negative: what they shall not show.
        picture: (h, w) codes. Alone it is a part that the whole is drawn around, as the task
            `image_to_image` has it.
        hidden: (h, w) bool: the codes of `picture` that are drawn again, as in the task `infill`.
            The model fills one stretch of the reading order, from the first to the last of them;
            codes in between that are not hidden are given to it on the way.
    """

    negative: str = ""
    picture: np.ndarray | None = None
    hidden: np.ndarray | None = None

    @property
    def task(self) -> str:
        """What the model must have learnt for it."""
        if self.picture is None:
            return "text_to_image"
        return "image_to_image" if self.hidden is None else "infill"


def draw(
    run: Run,
    prompts: Sequence[str],
    settings: SampleSettings,
    given: Given | None = None,
    *,
    first: int = 0,
) -> list[Image.Image]:
    """A picture for each prompt; see `draw_codes`."""
    if not prompts:
        return []
    return run.images.decode_images(draw_codes(run, prompts, settings, given, first=first))


def draw_codes(
    run: Run,
    prompts: Sequence[str],
    settings: SampleSettings,
    given: Given | None = None,
    *,
    first: int = 0,
) -> np.ndarray:
    """The codes of a picture for each of at least one prompt: a whole grid, image codes only.

    A picture depends on the seed, its prompt, what is given and its number; not on the other
    prompts. The numbers begin with `first`.

    Returns:
        (B, h, w) uint16.

    Raises:
        UserError: as in `stream_codes`.
    """
    start, stop = _drawn_again(run, given)
    drawn = np.empty((len(prompts), stop - start), np.int64)  # (B, G), or as many as are hidden
    with counting("drawing") as show:
        for at in range(0, len(prompts), _BATCH):
            some = prompts[at : at + _BATCH]
            for place, codes in enumerate(
                stream_codes(run, some, settings, given, first=first + at)
            ):
                drawn[at : at + len(some), place] = codes
                show(at * (stop - start) + (place + 1) * len(some), drawn.size, "codes")
    if given is not None and given.picture is not None and given.hidden is not None:
        whole = np.tile(ids_of(run.picture(given.picture)), (len(prompts), 1))  # (B, G)
        whole[:, start:stop] = drawn
        drawn = whole
    return to_grid(drawn, run.vocabulary.image).astype(np.uint16)


def stream_codes(
    run: Run,
    prompts: Sequence[str],
    settings: SampleSettings,
    given: Given | None = None,
    *,
    first: int = 0,
) -> Iterator[np.ndarray]:
    """The codes of a picture for each prompt as they come, in the vocabulary's reading order.

    Args:
        run: the model.
        prompts: B texts, drawn as one batch.
        settings: how codes are drawn.
        given: what else they are drawn from.
        first: number of the first picture; it decides the random numbers with the seed.

    Yields:
        (B,) int64 codes, G times; with hidden codes, from the first to the last of these.

    Raises:
        UserError: when the negative would have no effect, or the run has not learnt the task.
    """
    given = given or Given()
    if given.picture is not None and not run.settings.learns(given.task):
        message = f"{run.folder} was trained without the task {given.task}"
        raise UserError(message, f"Train with train.tasks.image.{given.task} above 0.")
    held, known = run.vocabulary.image, {}
    start, stop = _drawn_again(run, given)
    if given.picture is not None and given.hidden is not None:
        ids = ids_of(run.picture(given.picture)) + held.start  # (G,)
        kept = np.flatnonzero(~to_sequence(given.hidden, held)[start:stop])
        known = {int(at): int(ids[start + at]) for at in kept}
    is_said = _says_negative(run, given)
    free = _text_without(settings, given.negative, is_said=is_said)

    def prompt(text: str, *, with_negative: bool) -> Written:
        segments = _before_picture(run, given, text, with_negative=with_negative)
        return run.writer.prompt(segments, "image", start=start)

    starts = [
        Start(
            prompt=prompt(text, with_negative=is_said),
            state=State("image", stop - start),
            without=None if free is None else prompt(free, with_negative=False),
            known=known,
        )
        for text in prompts
    ]
    limit, grammar = stop - start, Grammar(run.vocabulary)
    for tokens in tokens_as_they_come(
        run.model, grammar, starts, settings, max_new_tokens=limit, first=first
    ):
        yield tokens - held.start


def describe(run: Run, pictures: Sequence[Image.Image], settings: SampleSettings) -> list[str]:
    """A text for each picture."""
    if not pictures:
        return []
    return describe_codes(run, run.images.encode_images(pictures), settings)


def describe_codes(run: Run, codes: np.ndarray, settings: SampleSettings) -> list[str]:
    """A text for each picture, given as (B, h, w) uint16 codes."""
    documents = [[run.picture(each).as_("condition")] for each in codes]
    limit = settings.caption_max_tokens
    written = write_on(run, documents, settings, following="text", max_new_tokens=limit)
    return [run.text.decode(ids_of(text).tolist()) for (text,) in written]


def make_sounds(
    run: Run, prompts: Sequence[str], settings: SampleSettings, *, negative: str = ""
) -> list[np.ndarray]:
    """The codes of a sound for each prompt, as long as the training's rows had room for at most.

    Returns:
        (n, q) int64 each, one frame or more.

    Raises:
        UserError: when the negative would have no effect, or the run was trained without sounds.
    """
    if not run.vocabulary.has("audio"):
        raise run.trained_without("sounds")
    room = run.settings.seq_len - run.settings.caption_max_tokens
    free = _text_without(settings, negative, is_said=False)
    written = write_on(
        run,
        [[run.caption(prompt)] for prompt in prompts],
        settings,
        following="audio",
        without=None if free is None else [run.caption(free)],
        max_new_tokens=max(room, run.vocabulary.range_of("audio").codebooks or 1),
    )
    return [codes_of(sound, run.vocabulary) for (sound,) in written]


def write_on(
    run: Run,
    documents: Sequence[Sequence[Segment]],
    settings: SampleSettings,
    *,
    max_new_tokens: int,
    following: str | None = None,
    opens: Sequence[str] = (),
    without: Sequence[Segment] | None = None,
) -> list[list[Segment]]:
    """Continue documents of texts, pictures and sounds with more of them.

    Args:
        run: the model.
        documents: at least one segment each.
        settings: how each modality is drawn; that of texts also decides what comes next.
        max_new_tokens: of each document. A text that is cut off there ends, of a sound the whole
            frames are kept, and a picture is dropped.
        following: modality of the first new segment; by default the model decides.
        opens: modalities of the segments after it; without one there are none.
        without: a document without its condition, for classifier-free guidance.

    Returns:
        The new segments of each document.
    """
    writer, grammar = run.writer, Grammar(run.vocabulary, opens=opens)

    def start(document: Sequence[Segment]) -> Written:
        if following is None:
            return writer.write(document, ends=False)
        return writer.prompt(document, following)

    state = BETWEEN if following is None else grammar.start(following)
    free = None if without is None else start(without)
    written = []
    with counting("writing") as show:
        for at in range(0, len(documents), _BATCH):
            some = documents[at : at + _BATCH]
            starts = [Start(prompt=start(each), state=state, without=free) for each in some]
            rows = [
                each.prompt.tokens[writer.length(document) :].tolist()
                for each, document in zip(starts, some, strict=True)
            ]
            states = [state] * len(some)
            drawn = tokens_as_they_come(
                run.model, grammar, starts, settings, max_new_tokens=max_new_tokens, first=at
            )
            for tokens in drawn:
                for number, token in enumerate(tokens.tolist()):
                    if states[number] != ENDED:
                        rows[number].append(token)
                    states[number] = grammar.after(states[number], token)
                show(at + states.count(ENDED), len(documents), "documents")
            closed = [grammar.close(*each) for each in zip(rows, states, strict=True)]
            written += [read_document(tokens, run.vocabulary) for tokens in closed]
    return written


def contact_sheet(
    run: Run, halves: Mapping[str, Sequence[tuple[str, bytes]]], settings: SampleSettings
) -> Image.Image:
    """Pictures next to their codes' reconstruction and what the model draws and reads.

    Args:
        run: the model.
        halves: text and encoded image of each pair, under the title of their part of the sheet.
        settings: how the pictures and texts are drawn.

    Raises:
        ImageError: when a picture cannot be decoded.
    """
    return render_sheet({title: _entries(run, pairs, settings) for title, pairs in halves.items()})


def _entries(
    run: Run, pairs: Sequence[tuple[str, bytes]], settings: SampleSettings
) -> list[SheetEntry]:
    if not pairs:
        return []
    texts = [text for text, _ in pairs]
    targets = [decode(content) for _, content in pairs]
    entries = zip(
        texts,
        targets,
        run.images.decode_images(run.images.encode_images(targets)),
        draw(run, texts, settings),
        describe(run, targets, settings),
        strict=True,
    )
    return [
        SheetEntry(text=text, target=target, reconstruction=again, drawn=drawn, described=read)
        for text, target, again, drawn, read in entries
    ]


def _before_picture(run: Run, given: Given, text: str, *, with_negative: bool) -> list[Segment]:
    """What is before a picture that is drawn, laid out as the task of `data.tasks` has it."""
    segments = [run.caption(text)]
    if given.picture is not None:
        whole = run.picture(given.picture).as_("condition")
        if given.hidden is None:
            segments.insert(0, whole)
        else:
            start, stop = _stretch(run, given.hidden)
            hidden = whole.part(start, stop).as_("hidden")
            segments += [whole.part(0, start), hidden, whole.part(stop, whole.size)]
    if with_negative:
        segments.append(run.caption(given.negative)._replace(mark="<negative>"))
    return segments


def _says_negative(run: Run, given: Given) -> bool:
    """Whether the negative is a condition of its own, as the model has learnt it."""
    needed = {"text_to_image": "negative_to_image", "image_to_image": "image_to_image"}
    task = needed.get(given.task)
    return bool(given.negative) and task is not None and run.settings.learns(task)


def _text_without(settings: SampleSettings, negative: str, *, is_said: bool) -> str | None:
    """The text that guidance leads away from: the negative, or the empty one of dropped captions.

    It is given as a caption, thus of a picture that does show it; `<negative>` would ask for one
    that does not, and guidance would lead towards what is not wanted.

    Raises:
        UserError: when the negative would have no effect.
    """
    if settings.cfg_scale != 1:
        return negative
    if negative and not is_said:
        message = "without guidance a negative has no effect on a model that has learnt none"
        raise UserError(message, "Set sample.cfg_scale to more than 1.")
    return None


def _drawn_again(run: Run, given: Given | None) -> tuple[int, int]:
    """Which codes of a picture are drawn, in reading order: all of them, or from hidden ones on."""
    if given is None or given.picture is None or given.hidden is None:
        return 0, run.vocabulary.image.num_codes
    return _stretch(run, given.hidden)


def _stretch(run: Run, hidden: np.ndarray) -> tuple[int, int]:
    """The first of (h, w) hidden codes in reading order, and the place after the last.

    Raises:
        ValueError: when none is hidden.
    """
    places = np.flatnonzero(to_sequence(hidden, run.vocabulary.image))
    if not len(places):
        message = "no code is hidden"
        raise ValueError(message)
    return int(places[0]), int(places[-1]) + 1
