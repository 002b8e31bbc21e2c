"""Every kind of sample against libvips, and against the samples that were written."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import pyvips

from pipeline.images import ImageError, Limits, inspect
from tests.pipeline.decoder_cases import CASES, Case, from_cmyk, on_white, rgb

PAGE = Path(__file__).parents[1] / "DECODERS.md"
TOLERANCE = 2
HEAD = f"""\
# The second decoder

What a picture's samples mean to anymix, compared with libvips and with the samples that were
written. The tests make the files, compare them, and fail where this page says otherwise;
`ANYMIX_WRITE_FAULTS=1 python -m pytest tests/pipeline/test_second_decoder.py` writes it again.

A difference is the largest of any channel of any pixel, out of 255. One above {TOLERANCE} has a
reason. `-`: libvips does not read the file, or what was written is not known exactly.

| what the files hold | files | ours | from libvips | from the samples | why they differ |
|---|---|---|---|---|---|
"""


def by_libvips(content: bytes) -> np.ndarray | None:
    """What libvips makes of a file, as RGB on white out of 255; None where it does not read it."""
    try:
        image = pyvips.Image.new_from_buffer(content, "").autorot()
        if image.get_typeof("icc-profile-data"):
            image = image.icc_transform("srgb", embedded=True)
        pixels = image.numpy().reshape(image.height, image.width, -1)
    except pyvips.Error:
        return None
    bits = 16 if pixels.dtype == np.uint16 else 8
    if image.interpretation == "cmyk":
        return from_cmyk(pixels, bits)
    return on_white(pixels, bits) if image.hasalpha() else rgb(pixels, bits)


@cache
def compared(name: str) -> tuple[str, int | None, int | None]:
    """What we make of a case's files, and the largest differences from libvips and the samples."""
    case = next(case for case in CASES if case.name == name)
    outcomes, from_libvips, from_samples = set(), [], []
    for content in case.files:
        try:
            found = inspect(content, Limits())
        except ImageError as error:
            outcomes.add(f"reject `{error.reason}`")
            continue
        outcomes.add(", ".join(f"`{each}`" for each in found.repairs) or "as it is")
        pixels = np.asarray(found.image).astype(float)
        if (other := by_libvips(content)) is not None:
            from_libvips.append(np.abs(pixels - other).max())
        if case.samples is not None:
            from_samples.append(np.abs(pixels - case.samples).max())
    largest = [int(np.rint(max(each))) if each else None for each in (from_libvips, from_samples)]
    return " or ".join(sorted(outcomes)), *largest


def line(case: Case) -> str:
    ours, *differences = compared(case.name)
    told = " | ".join("-" if each is None else str(each) for each in differences)
    why = case.why if any((each or 0) > TOLERANCE for each in differences) else ""
    return f"| {case.name} | {len(case.files)} | {ours} | {told} | {why} |\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_sample_means_the_same_to_both_decoders(case):
    ours, *differences = compared(case.name)
    assert case.why or all((each or 0) <= TOLERANCE for each in differences), differences
    assert ours.startswith("reject") or any(each is not None for each in differences)


def test_the_page_is_what_the_tests_write():
    page = HEAD + "".join(map(line, CASES))
    if os.environ.get("ANYMIX_WRITE_FAULTS"):
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page
