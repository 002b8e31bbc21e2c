"""`docs/sources.md` against the code."""

import re
from pathlib import Path

import pytest

from pipeline.sources import endings, known_names
from pipeline.sources.folder_walk import METADATA
from pipeline.sources.spans import SUFFIXES
from pipeline.sources.unpacking import PACKINGS

PAGE = Path("docs/sources.md").read_text()


@pytest.mark.parametrize(
    ("meaning", "names"),
    [
        ("caption", known_names.CAPTIONS),
        ("licence", known_names.LICENCES),
        ("origin", known_names.ORIGINS),
        ("attribution", known_names.ATTRIBUTIONS),
        ("image", (*known_names.IMAGES, "*_file_name")),
    ],
)
def test_the_page_has_all_known_names_in_their_order(meaning, names):
    (row,) = re.findall(rf"^\| {meaning} \| (.*) \|$", PAGE, re.MULTILINE)
    assert tuple(re.findall(r"`([^`]+)`", row)) == names


def test_the_page_names_all_endings():
    assert all(f"`{ending}`" in PAGE for ending in (*SUFFIXES, *PACKINGS))


@pytest.mark.parametrize(
    ("what", "known"),
    [
        ("picture", endings.PICTURES),
        ("picture, with `pip install 'anymix[heif]'`", endings.EXTRAS[0].endings),
        ("picture, with `pip install 'anymix[jxl]'`", endings.EXTRAS[1].endings),
        ("sound", endings.SOUNDS),
        ("tar", endings.TARS),
        ("metadata of a folder", [METADATA[0], *endings.TABLES[1:]]),
    ],
)
def test_the_table_of_endings_is_that_of_the_code(what, known):
    (row,) = re.findall(rf"^\| {re.escape(what)} \| (.*) \|$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", row)) == set(known)
