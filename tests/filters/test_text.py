import pytest

from filters.settings import ScoreSettings
from filters.text import caption_quality


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a red apple on a table", None),
        ("flag of Åland Islands", None),
        ("rojo 🍎 manzana", None),
        ("7", "too-short"),
        ("", "empty"),
        ("   ", "empty"),
        ("IMG_1234.jpg", "file-name"),
        ("DSC00042", "file-name"),
        ("untitled", "file-name"),
        ("my-photo_final.JPEG", "file-name"),
        ("see https://example.org/a", "address"),
        ("write to me@example.org", "address"),
        ("!!! ---", "no-words"),
        ("buy buy buy buy now", "repetition"),
        ("word " * 401, "too-long"),
    ],
)
def test_captions_that_cannot_teach_anything_fail_by_name(text, fault):
    quality = caption_quality(text, ScoreSettings())
    assert quality.fault == fault
    assert (quality.quality == 1) == (fault is None)


def test_quality_falls_with_each_check_that_fails():
    one = caption_quality("IMG_1234.jpg", ScoreSettings()).quality
    two = caption_quality("", ScoreSettings()).quality
    assert 0 <= two < one < 1
