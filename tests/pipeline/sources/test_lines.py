"""Files of rows as people and programs write them: encodings, line ends, quotes, compression."""

import bz2
import codecs
import csv
import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import TableSettings, TextSourceSettings, open_source
from pipeline.sources.delimited import rows_of
from pipeline.sources.files import Problem
from pipeline.text_files import decode_text
from tests.pipeline.sources.files import parts_of, read, write_parquet

ENCODINGS = {
    "UTF-8": ("utf-8", b""),
    "UTF-8 with a mark": ("utf-8", codecs.BOM_UTF8),
    "UTF-16, little end first": ("utf-16-le", codecs.BOM_UTF16_LE),
    "UTF-16, big end first": ("utf-16-be", codecs.BOM_UTF16_BE),
}
TEXTS = [f"row {number} … 𝄞" for number in range(50)]
ROWS = {
    "csv": ["n,caption", *(f'{n},"{text}, quoted"' for n, text in enumerate(TEXTS))],
    "tsv": ["n\tcaption", *(f"{n}\t{text}, quoted" for n, text in enumerate(TEXTS))],
    "jsonl": [json.dumps({"caption": f"{text}, quoted"}, ensure_ascii=False) for text in TEXTS],
    "json": ["[", *(json.dumps({"caption": f"{text}, quoted"}) + "," for text in TEXTS), "{}]"],
    "txt": [line for text in TEXTS for line in (f"{text}, quoted", "")],
}


def table(path, **settings):
    return TableSettings(kind="table", path=path, caption_columns=["caption"], **settings)


def captions(path, rows_per_part=100):
    source = table(path)
    if ".txt" in path.name:
        source = TextSourceSettings(kind="text", path=path, per="paragraph")
    records, rejects = read(source, rows_per_part)
    return [record.caption for record in records], rejects


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("suffix", ROWS)
def test_rows_are_the_same_however_they_are_written_and_cut(tmp_path, suffix, line_end, encoding):
    codec, mark = ENCODINGS[encoding]
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(mark + (line_end.join(ROWS[suffix]) + line_end).encode(codec))
    whole, rejects = captions(path)
    assert whole == [f"{text}, quoted" for text in TEXTS]
    assert captions(path, 7)[0] == whole
    assert len(rejects) == (suffix == "json")  # the last object has no caption


PACKED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("suffix", ROWS)
def test_compressed_files_are_read_as_they_are(tmp_path, suffix, packing):
    path = tmp_path / f"t.{suffix}.{packing}"
    path.write_bytes(PACKED[packing](("\r\n".join(ROWS[suffix])).encode("utf-16")))
    assert captions(path)[0] == captions(path, 7)[0] == [f"{text}, quoted" for text in TEXTS]


def test_the_members_of_a_gzip_file_are_one_file(tmp_path):
    path = tmp_path / "t.CSV.GZ"
    path.write_bytes(gzip.compress(b"caption\none\n") + gzip.compress(b"two\n"))
    assert captions(path)[0] == ["one", "two"]


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_what_a_damaged_compressed_file_gives_is_the_same_however_it_is_cut(tmp_path, damage):
    lines = "\n".join(f"{number},{number * 7919 % 1000003:x}" for number in range(50_000))
    packed = gzip.compress(f"n,caption\n{lines}\n".encode())
    half = len(packed) // 2
    tail = b"" if damage == "cut off" else b"\xff" * 64 + packed[half + 64 :]
    path = tmp_path / "t.csv.gz"
    path.write_bytes(packed[:half] + tail)
    whole, rejects = captions(path, 1_000_000)
    assert 1_000 < len(whole) < 45_000
    # Overwritten bytes unpack to nonsense, until the check at the end tells.
    assert rejects[-1][1] == "ingest-file-unreadable"
    assert len(rejects) == 1 or damage == "overwritten"
    assert captions(path, 4_999) == (whole, rejects)


def test_a_compressed_bomb_is_a_reject_that_says_so(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"caption": "one"}\n' + (b" " * 9999 + b"\n") * 5000))
    assert captions(path) == (["one"], [("t.jsonl.gz:1", "ingest-file-unreadable")])


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_the_header_shows_what_parts_the_fields(tmp_path, suffix, sign):
    path = tmp_path / f"t.{suffix}"
    path.write_text(f"n{sign}caption\n1{sign}one\n2{sign}two, with a comma\n".replace(", ", ": "))
    assert captions(path)[0] == ["one", "two: with a comma"]


def test_a_file_of_one_column_is_parted_by_what_its_name_says(tmp_path):
    (tmp_path / "t.tsv").write_text("caption\none, two; three\n")
    assert captions(tmp_path / "t.tsv")[0] == ["one, two; three"]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_quote_that_is_never_closed_swallows_no_row(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    sign = "," if suffix == "csv" else "\t"
    rows = ["a flag", '"the best flag', "a flag", 'a 10" flag', '"Hello" she said', '"""', "last"]
    path.write_text("".join(f"{n}{sign}{row}\n" for n, row in enumerate(["caption", *rows])))
    assert captions(path)[0] == rows
    assert captions(path, 2)[0] == rows


def test_a_quote_with_commas_behind_it_that_is_never_closed_is_a_row_or_a_reject(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('n,caption\n1,"the best, flag\n2,"one", two, "three"\n3,last\n')
    assert captions(path) == (["the best, flag", "last"], [("t.csv:1", "ingest-row-ragged")])


def test_rows_between_two_lone_quotes_are_a_reject_that_names_them(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('n,caption\n1,"the best flag\n2,a flag\n3,of 10"\n4,last\n')
    (reject,) = [row for row in read_problems(path) if isinstance(row, Problem)]
    assert reject.detail == (
        "3 lines from '1,\"the best flag' on are one row by their quotes, and 3 rows without them: "
        "close the quote, or double those that are text"
    )
    assert captions(path)[0] == ["last"]


def read_problems(path):
    from pipeline.sources.lines import read_rows

    return list(read_rows(path, 0, None))


signs = st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\t\0")
raw_cells = st.text(signs | st.sampled_from('""",;| '), max_size=8)


@given(st.lists(st.tuples(raw_cells, raw_cells), max_size=12))
def test_each_line_of_a_tsv_without_quoting_is_a_row(rows):
    lines = ["image\tcaption\n", *(f"{image}\t{caption}\n" for image, caption in rows)]
    found = list(rows_of(iter(lines), "\t", None))
    assert [taken for _, taken in found] == [[line] for line in lines]


cells = st.text(signs | st.sampled_from('"",\n '), max_size=8)


@given(
    st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=12),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(max_examples=300)
def test_what_a_csv_writer_writes_is_read_back(rows, quoting):
    written = io.StringIO()
    writer = csv.writer(written, quoting=quoting, lineterminator="\n")
    writer.writerows([["image", "caption", "n"], *rows])
    _, *found = rows_of(io.StringIO(written.getvalue()), ",", None)
    assert len(found) == len(rows)
    for (row, taken), wanted in zip(found, rows, strict=True):
        assert row == wanted or (isinstance(row, Problem) and len(taken) > 1)


LAID_OUT = {
    "an array over several lines": '[\n  {\n "caption": "one"\n },\n  {"caption": "two"}\n]\n',
    "an array on one line": '[{"caption": "one"}, {"caption": "two"}]',
    "objects over several lines": '{\n "caption": "one"\n}\n{\n "caption": "two"}',
    "an object a line": '{"caption": "one"}\n{"caption": "two"}\n',
}


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize("layout", LAID_OUT)
@pytest.mark.parametrize("rows_per_part", [1, 100])
def test_json_is_rows_however_it_is_laid_out(tmp_path, suffix, layout, rows_per_part):
    path = tmp_path / f"t.{suffix}"
    path.write_text(LAID_OUT[layout])
    assert captions(path, rows_per_part) == (["one", "two"], [])


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('[{"caption": "one"}, {"caption": oops}, {"caption": "two"}]',
         "not JSON: Expecting value at character 12; what follows is not read"),
        ('[{"caption": "one"}, {"caption": "tw',
         "not JSON: Unterminated string starting at at character 12; what follows is not read"),
        ('[{"caption": "one"}', "not JSON: the array is not closed; the file may be cut off"),
        ('[{"caption": "one"}] more', "not JSON: 'more' follows the array"),
    ],
)  # fmt: skip
def test_an_array_that_breaks_off_gives_the_rows_before_and_says_where(tmp_path, text, detail):
    path = tmp_path / "t.json"
    path.write_text(text)
    first, problem = read_problems(path)
    assert (first["caption"], problem.detail) == ("one", detail)


def test_a_long_array_is_read_in_pieces(tmp_path):
    rows = [{"caption": f"{number} " + "x" * (number * 997 % 60_000)} for number in range(200)]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows, indent=1))
    assert captions(path, 30)[0] == [row["caption"].strip() for row in rows]


def test_rows_that_are_appended_change_only_the_last_part_of_any_encoding(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("caption\n".encode("utf-16"))
    with path.open("ab") as stream:
        stream.write("".join(f"{number}\n" for number in range(25)).encode("utf-16-le"))
    before = {part.name for part in parts_of(table(path))}
    with path.open("ab") as stream:
        stream.write("25\n".encode("utf-16-le"))
    assert len({part.name for part in parts_of(table(path))} - before) == 1


def test_a_real_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    (tmp_path / "data[1]").mkdir()
    path = tmp_path / "data[1]" / "part[2].csv"
    path.write_text("caption\none\n")
    write_parquet(tmp_path / "data[1]" / "a.parquet", {"caption": ["two"]})
    assert captions(path)[0] == ["one"]
    assert captions(tmp_path / "data[1]" / "*.parquet")[0] == ["two"]
    (tmp_path / "data[1]" / "a?.txt").write_text("three")
    texts = TextSourceSettings(kind="text", path=tmp_path / "data[1]" / "a?.txt")
    assert [record.caption for record in read(texts)[0]] == ["three"]


def test_a_table_and_its_pictures_may_lie_on_a_store():
    from pipeline.engine.storage import to_path
    from tests.pipeline.sources.files import png

    root = to_path("memory://tables/rows")
    root.mkdir(parents=True, exist_ok=True)
    (root / "a.png").write_bytes(png(1))
    lines = "\r\n".join(["image,caption", "a.png,one", "memory://tables/rows/a.png,two"])
    (root / "t.csv").write_bytes(lines.encode("utf-16"))
    (root / "t.csv.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("t.csv", "t.csv.gz", "*.csv"):
        records, rejects = read(table(root / name), 1)
        assert [(each.caption, each.image) for each in records] == [
            ("one", png(1)),
            ("two", png(1)),
        ]
        assert rejects == []


@pytest.mark.parametrize(
    "name", ["t.csv", "t.csv.gz", "t.csv.bz2", "t.CSV.ZST"], ids=lambda name: f"named {name}"
)
@pytest.mark.parametrize("packing", [*PACKED, "none", "none, with a mark"])
def test_a_table_is_unpacked_by_its_first_bytes_whatever_its_name_says(tmp_path, name, packing):
    pack = PACKED.get(packing, lambda raw: raw)
    text = "caption,n\none,1\ntwo,2\n"
    content = text.encode("utf-8-sig" if "mark" in packing else "utf-8")
    (tmp_path / name).write_bytes(pack(content))
    assert captions(tmp_path / name) == (["one", "two"], [])
    path = (tmp_path / name).rename(tmp_path / name.lower().replace("csv", "txt"))
    ((record,), _) = read(TextSourceSettings(kind="text", path=path))
    said = record.caption if isinstance(record.caption, bytes) else record.caption.encode()
    assert decode_text(said).text.strip() == text.strip()


OTHERS = {
    b"PK\x03\x04": "zip archive",
    b"\xd0\xcf\x11\xe0": "Excel",
    b"\xfd7zXZ\x00": "xz file",
    b"PAR1": "Parquet",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:": "Git LFS",
}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "csv.gz"])
@pytest.mark.parametrize("start", OTHERS)
def test_what_is_no_file_of_rows_is_a_reject_that_says_what_it_is(tmp_path, start, suffix):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(start + bytes(range(256)) * 9)
    source = open_source(table(path))
    (reject,) = [each for part in source.parts(9, {}) for each in source.read(part)]
    assert reject.reason == "ingest-file-unreadable"
    assert OTHERS[start] in reject.detail


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line", ["sep=;\r\n", '"SEP=;"\n'])
def test_the_line_that_tells_excel_the_delimiter_is_no_header(tmp_path, line, encoding):
    codec, mark = ENCODINGS[encoding]
    path = tmp_path / "t.csv"
    path.write_bytes(mark + f"{line}n;caption\r\n1;one, two\r\n2;three\r\n".encode(codec))
    assert captions(path) == captions(path, 1) == (["one, two", "three"], [])


def test_a_header_may_have_spaces_and_delimiters_in_quotes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('"a, b, c, d"; caption ;n\n1;one;2\n')
    assert captions(path) == (["one"], [])


def test_a_txt_file_that_begins_with_names_of_columns_is_a_table(tmp_path):
    path = tmp_path / "captions.txt"  # as Flickr8k has it
    path.write_text('image,caption\na.jpg,"A dog , running ."\n\na.jpg,A dog\n')
    for rows_per_part in (1, 9):
        records, rejects = read(TableSettings(kind="table", path=path), rows_per_part)
        assert (records, [reason for _, reason in rejects]) == ([], ["ingest-image-missing"] * 2)
    path.write_text("An image, a caption: prose.\n\nMore.\n")
    assert len(captions(path)[0]) == 2


def test_a_glob_takes_endings_in_any_case_and_leaves_out_what_is_hidden(tmp_path):
    for name in ("a.CSV", "b.csv", "._b.csv", ".ipynb_checkpoints/b-checkpoint.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"caption\n{name}\n")
        (tmp_path / name).with_suffix(".Txt").write_text(name)
    assert captions(tmp_path / "**" / "*.csv") == (["a.CSV", "b.csv"], [])
    assert captions(tmp_path / "**" / "*.txt") == (["a.CSV", "b.csv"], [])
    hidden = captions(tmp_path / ".ipynb_checkpoints" / "*.csv")
    assert hidden == ([".ipynb_checkpoints/b-checkpoint.csv"], [])


def test_headers_between_files_that_are_joined_are_no_rows(tmp_path):
    one = "\ufeffn,caption\n1,one\n"
    (tmp_path / "t.csv").write_text("\ufeff" + one + one)
    assert captions(tmp_path / "t.csv") == (["one"] * 2, [("t.csv:1", "ingest-row-malformed")])
