import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.texts import TextError, clean
from tests.faults.bad_records import TEXTS


@pytest.mark.parametrize("bad", TEXTS, ids=lambda bad: bad.name)
def test_a_bad_text_is_repaired_or_has_a_reason(bad):
    if bad.reason is None:
        cleaned = clean(bad.make(), max_characters=20_000)
        assert cleaned.repairs == bad.repairs
        assert cleaned.text.startswith("a ")
    else:
        with pytest.raises(TextError) as error:
            clean(bad.make(), max_characters=20_000)
        assert error.value.reason == bad.reason


@pytest.mark.parametrize(
    "text", ["a cat", "AT&T, ?a=1&copy=2", "سلام\u200c دنیا\u200f", "👩\u200d🚀 on the moon"]
)
def test_a_good_text_is_left_alone(text):
    cleaned = clean(text, max_characters=100)
    assert (cleaned.text, cleaned.repairs) == (text, ())


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"  a caf\xe9", "not UTF-8: byte 7 is b'\\xe9' (unexpected end of data)"),
        (b"\xef\xbb\xbfone\r\n\xff", "not UTF-8: byte 8 is b'\\xff' (invalid start byte)"),
        (b"\xff\xfea\0b", "not UTF-16: byte 4 is b'b' (truncated data)"),
    ],
)
def test_bytes_that_are_no_text_are_named_with_their_place_in_the_file(raw, detail):
    with pytest.raises(TextError) as error:
        clean(raw, max_characters=100)
    assert (error.value.reason, str(error.value)) == ("ingest-caption-not-utf-8", detail)


@given(st.text(alphabet=st.characters(), max_size=60) | st.binary(max_size=60))
def test_whatever_comes_is_text_that_utf_8_can_hold_or_a_reject(raw):
    try:
        text = clean(raw, max_characters=50).text
    except TextError:
        return
    assert text.encode()
    assert "\x00" not in text
