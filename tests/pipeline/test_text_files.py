import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.upkeep import read_list
from pipeline.engine.forgotten import Entry
from pipeline.errors import UserError
from pipeline.text_files import KEEP, decode_text, encoding_of, undecodable

WRITTEN = {
    "plain": ("utf-8", b""),
    "marked": ("utf-8", codecs.BOM_UTF8),
    "UTF-16, little end first": ("utf-16-le", codecs.BOM_UTF16_LE),
    "UTF-16, big end first": ("utf-16-be", codecs.BOM_UTF16_BE),
    "UTF-16 without a mark": ("utf-16-le", b""),
    "UTF-16 from a Mac without a mark": ("utf-16-be", b""),
    "UTF-32": ("utf-32-le", codecs.BOM_UTF32_LE),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_text_is_the_same_however_it_is_written(written, line_end):
    codec, mark = WRITTEN[written]
    raw = mark + f"one…{line_end}{line_end}two{line_end}".encode(codec)
    assert decode_text(raw).text == "one…\n\ntwo\n"
    assert bool(decode_text(raw).repairs) == (written != "plain")


def test_what_an_encoding_does_not_know_can_be_found():
    assert undecodable(decode_text(b"a caf\xe9").text) == 5
    assert undecodable(decode_text("a café".encode()).text) is None


@given(st.binary(max_size=80), st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"]))
def test_whatever_the_bytes_are_there_is_a_text_of_their_length(raw, codec):
    encoded = raw.decode(codec, KEEP).encode(codec, KEEP)
    whole = len(raw) // 4 * 4
    if codec != "utf-32-le":
        assert encoded[:whole] == raw[:whole]
    assert len(encoded) >= whole


@given(st.text(alphabet=st.characters(exclude_characters="\r\0\ufeff"), max_size=300))
def test_text_in_utf8_is_never_taken_for_another_encoding(text):
    raw = text.encode("utf-8", "ignore")
    assert encoding_of(raw).codec == "utf-8"


@pytest.mark.parametrize("raw", [b"record one\r\n\r\n", "record one\r\r".encode("utf-16")])
def test_a_list_of_what_to_forget_may_be_saved_by_any_editor(tmp_path, raw):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf" * (b"\r\n" in raw) + raw)
    assert read_list(path) == [Entry(kind="record", value="one")]


def test_a_list_that_cannot_be_read_is_said_in_a_sentence(tmp_path):
    with pytest.raises(UserError) as error:
        read_list(tmp_path / "gone.txt")
    assert error.value.message == f"{tmp_path}/gone.txt cannot be read: No such file or directory"
