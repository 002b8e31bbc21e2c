"""Pictures from texts, and texts from pictures.

Legend: B prompts, G codes of a picture, h w code grid, R image codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from pipeline.images import decode
from tokenizer_cache.code_order import to_grid
from trainer.data.sequence import ids_of, read_document
from trainer.generate.engine import Continuation, pick, uniforms
from trainer.generate.sheet import SheetEntry, render_sheet
from trainer.run import Run
from trainer.settings import SampleSettings

_BATCH = 32
"""Prompts at a time; bounds the memory of keys and values."""


def draw(run: Run, prompts: Sequence[str], settings: SampleSettings) -> list[Image.Image]:
    """A picture for each prompt.

    Picture i depends on the seed, its prompt and i; not on the other prompts.
    """
    if not prompts:
        return []
    return run.images.decode_images(draw_codes(run, prompts, settings))


def draw_codes(run: Run, prompts: Sequence[str], settings: SampleSettings) -> np.ndarray:
    """The codes of a picture for each of at least one prompt: a whole grid, image codes only.

    Returns:
        (B, h, w) uint16.
    """
    rows = [
        _draw_batch(run, prompts[start : start + _BATCH], settings, first=start)
        for start in range(0, len(prompts), _BATCH)
    ]
    return to_grid(np.concatenate(rows), run.vocabulary.image).astype(np.uint16)  # (B, h, w)


def _draw_batch(
    run: Run, prompts: Sequence[str], settings: SampleSettings, *, first: int
) -> np.ndarray:
    """(B, G) int64 codes for some prompts; `first` is the number of the first one.

    Classifier-free guidance (Ho and Salimans, arXiv 2207.12598, equation 6, with 1 + w as the
    scale): the logits with the text are moved away from those without it.
    """
    ids, writer = run.vocabulary.image, run.writer
    guided = settings.cfg_scale != 1
    conditions = [run.caption(prompt) for prompt in prompts]
    conditions += [run.caption("")] * (len(prompts) * guided)
    total = run.vocabulary.image.num_codes
    continuation = Continuation(
        run.model,
        run.vocabulary,
        [writer.prompt([condition], "image") for condition in conditions],
        max_new_tokens=total,
    )
    draws = torch.stack(
        [uniforms(settings.seed, first + n, num_steps=total) for n in range(len(prompts))]
    ).to(run.device)  # (B, G)
    codes = []
    for step in range(total):
        logits = continuation.logits[:, ids.start : ids.stop].log_softmax(dim=-1)  # (B or 2B, R)
        if guided:
            conditional, free = logits.chunk(2)
            logits = free + settings.cfg_scale * (conditional - free)  # (B, R)
        code = pick(
            logits, draws[:, step], temperature=settings.temperature, top_k=settings.top_k
        )  # (B,)
        codes.append(code)
        if step < total - 1:
            continuation.append((ids.start + code).repeat(1 + guided))
    return torch.stack(codes, dim=1).cpu().numpy()  # (B, G)


def describe(run: Run, pictures: Sequence[Image.Image], settings: SampleSettings) -> list[str]:
    """A text for each picture."""
    if not pictures:
        return []
    return describe_codes(run, run.images.encode_images(pictures), settings)


def describe_codes(run: Run, codes: np.ndarray, settings: SampleSettings) -> list[str]:
    """A text for each picture, given as (B, h, w) uint16 codes."""
    return [
        text
        for start in range(0, len(codes), _BATCH)
        for text in _describe_batch(run, codes[start : start + _BATCH], settings, first=start)
    ]


def _describe_batch(
    run: Run, codes: np.ndarray, settings: SampleSettings, *, first: int
) -> list[str]:
    """Texts for (B, h, w) codes: text ids only, until `</txt>` or the longest text."""
    ids = run.vocabulary.text
    writer, end = run.writer, run.vocabulary.special("</txt>")
    allowed = torch.tensor([end, *range(ids.start, ids.stop)], device=run.device)  # (R,)
    limit = settings.caption_max_tokens
    continuation = Continuation(
        run.model,
        run.vocabulary,
        [writer.prompt([run.picture(each).as_("condition")], "text") for each in codes],
        max_new_tokens=limit,
    )
    draws = torch.stack(
        [uniforms(settings.seed, first + n, num_steps=limit) for n in range(len(codes))]
    ).to(run.device)
    tokens = []
    for step in range(limit):
        chosen = pick(
            continuation.logits[:, allowed],
            draws[:, step],
            temperature=settings.caption_temperature,
            top_k=settings.top_k,
        )
        tokens.append(allowed[chosen])
        if step < limit - 1:
            continuation.append(tokens[-1])
    begin = run.vocabulary.special("<txt>")
    texts = []
    for row in torch.stack(tokens, dim=1).tolist():
        length = row.index(end) if end in row else limit
        (text,) = read_document([begin, *row[:length], end], run.vocabulary)
        texts.append(run.text.decode(ids_of(text).tolist()))
    return texts


def contact_sheet(
    run: Run, pairs: Sequence[tuple[str, bytes]], settings: SampleSettings
) -> Image.Image:
    """Held-out pictures beside their codes' reconstruction and what the model draws and reads.

    Args:
        run: the model.
        pairs: text and encoded image of each pair.
        settings: how the pictures and texts are drawn.

    Raises:
        ImageError: when a picture cannot be decoded.
    """
    if not pairs:
        return render_sheet([])
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
    return render_sheet(
        [
            SheetEntry(text=text, target=target, reconstruction=again, drawn=drawn, described=read)
            for text, target, again, drawn, read in entries
        ]
    )
