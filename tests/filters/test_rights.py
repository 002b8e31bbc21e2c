import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.blocklists import lists_fingerprint, read_lists
from filters.rights import RightsWorker, host_of, refuse_record
from filters.settings import RightsSettings
from pipeline.engine.schemas import PICTURES, RECORDS, REFUSALS, VARIANTS
from pipeline.engine.stage import Work
from pipeline.engine.tables import read_table, write_table
from pipeline.errors import UserError

RECORD = {field.name: None if field.nullable else "x" for field in RECORDS} | {
    "more_captions": [], "repairs": [], "opt_outs": [], "licence": "CC0-1.0",
}  # fmt: skip
VARIANT = {
    field.name: "x" if str(field.type) == "string" else 1 for field in VARIANTS
}  # fmt: skip
IMAGE, PIXELS = "a" * 64, "b" * 64


def listed(tmp_path, **lists):
    """Settings with a file for each list."""
    for name, text in lists.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return RightsSettings(**{name: str(tmp_path / name) for name in lists})


def refuse(settings, **columns):
    """The reason for which a record is refused, or None."""
    record = RECORD | {"pixel_hash": None} | columns
    refusal = refuse_record(record, settings, read_lists(settings))
    return refusal and refusal.reason


def test_without_a_word_in_the_recipe_everything_may_be_used():
    record = {"licence": "unknown", "opt_outs": ["tdm-reservation:1"], "origin": "https://a.org"}
    assert refuse(RightsSettings(), **record) is None


def test_only_licences_on_the_list_may_be_used():
    settings = RightsSettings(licences=["CC0-1.0", "cc-by-4.0"])
    assert refuse(settings, licence="CC0-1.0") is None
    assert refuse(settings, licence="CC-BY-4.0") is None
    assert refuse(settings, licence="CC-BY-NC-4.0") == "licence-not-allowed"
    assert refuse(settings, licence="unknown") == "licence-not-allowed"


def test_an_opt_out_that_ingest_has_kept_can_be_heeded_later():
    settings = RightsSettings(opt_outs="reject")
    assert refuse(settings, opt_outs=["x-robots-tag:noai"]) == "opted-out"
    assert refuse(settings, opt_outs=[]) is None


@pytest.mark.parametrize(
    ("origin", "is_refused"),
    [
        ("https://example.org/a.jpg", True),
        ("HTTP://WWW.Example.ORG:8080/a.jpg", True),
        ("https://me:secret@img.example.org./a", True),
        ("https://notexample.org/a.jpg", False),
        ("https://example.org.evil.net/a.jpg", False),
        ("https://good.net/?from=example.org", False),
        ("https://bücher.de/a", True),
        ("https://xn--bcher-kva.de/a", True),
        ("/data/example.org/a.jpg", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_a_domain_stands_for_itself_and_those_below_it(tmp_path, origin, is_refused):
    settings = listed(tmp_path, blocked_domains="# ours\n\n*.Example.org\nbücher.de\n")
    assert (refuse(settings, origin=origin) == "blocked-domain") == is_refused


@given(st.text(max_size=300))
def test_every_origin_has_a_host_or_none(origin):
    assert len(host_of(origin)) <= 253
    assert read_lists(RightsSettings()).domain(host_of(f"https://{origin}")) is None


def test_an_image_is_known_by_its_bytes_or_its_pixels(tmp_path):
    settings = listed(tmp_path, blocked_images=f"{IMAGE}\n{PIXELS.upper()}\n")
    assert refuse(settings, image_id=IMAGE) == "blocked-image"
    assert refuse(settings, image_id="c" * 64, pixel_hash=PIXELS) == "blocked-image"
    assert refuse(settings, image_id="c" * 64, pixel_hash="d" * 64) is None
    assert refuse(settings, image_id=None) is None


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("A Slur, here", "slur"),
        ("\uff53\uff4c\uff55\uff52 in wide letters", "slur"),
        ("slurry of cement", None),
        ("the two\nWords!", "two words"),
        ("two other words", None),
        ("call 555-0199", "/555-\\d{4}/"),
        ("", None),
    ],
)
def test_a_text_is_blocked_by_words_phrases_and_patterns(tmp_path, text, entry):
    settings = listed(tmp_path, blocked_texts="slur\ntwo words\n/555-\\d{4}/\n")
    assert read_lists(settings).texts.entry(text) == entry


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("blocked_domains", "https://example.org/a", "without a scheme"),
        ("blocked_domains", "a b", "without a scheme"),
        ("blocked_images", "abc", "64 hexadecimal digits"),
        ("blocked_texts", "/(/", "no regular expression"),
        ("blocked_texts", "!!", "a word, a phrase"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, name, line, message):
    settings = listed(tmp_path, **{name: f"# a list\n{line}\n"})
    with pytest.raises(UserError, match=message) as error:
        read_lists(settings)
    assert f"{name}:2:" in error.value.message


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no-such-list"):
        read_lists(RightsSettings(blocked_texts=str(tmp_path / "no-such-list")))


def test_a_list_may_be_saved_by_any_editor(tmp_path):
    for number, raw in enumerate(
        (b"\xef\xbb\xbfslur\r\ntwo words\r\n", "slur\rtwo words\r".encode("utf-16"))
    ):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(raw)
        texts = read_lists(RightsSettings(blocked_texts=str(path))).texts
        assert (texts.entry("a slur"), texts.entry("two words")) == ("slur", "two words")


def test_a_list_that_is_not_text_is_named_with_the_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"slur\ncaf\xe9\n")
    with pytest.raises(UserError, match=r"list.txt:2: character 4 is not UTF-8"):
        read_lists(RightsSettings(blocked_texts=str(path)))


def test_the_content_of_the_lists_decides_not_their_place(tmp_path):
    prints = []
    for name, text in (("a", "slur\n"), ("b", "# the same\nslur\n"), ("c", "slur\nother\n")):
        (tmp_path / name).write_text(text)
        settings = RightsSettings(blocked_texts=str(tmp_path / name))
        assert settings.model_dump(mode="json") == RightsSettings().model_dump(mode="json")
        prints.append(lists_fingerprint(settings))
    assert prints[0] == prints[1] != prints[2]


def test_the_stage_refuses_records_and_texts_with_the_entry(tmp_path):
    settings = listed(
        tmp_path, blocked_domains="bad.org", blocked_images=PIXELS, blocked_texts="slur"
    )
    records = [
        RECORD | {"record_id": "a", "origin": "https://cdn.bad.org/1"},
        RECORD | {"record_id": "b", "image_id": IMAGE, "caption": "a slur"},
        RECORD | {"record_id": "c", "more_captions": [{"name": "de", "text": "ein Slur"}]},
    ]
    picture = {"record_id": "b", "pixel_hash": PIXELS, "image_id": IMAGE}
    variant = VARIANT | {"record_id": "c", "variant_id": "v", "text": "no SLUR"}
    tables = {
        "records": (records, RECORDS),
        "pictures": (
            [
                dict.fromkeys(PICTURES.names, 0)
                | {"image_feature": None, "perceptual_hash": None}
                | picture
            ],
            PICTURES,
        ),
        "variants": ([variant], VARIANTS),
    }
    for name, (rows, schema) in tables.items():
        write_table(tmp_path / f"{name}.parquet", rows, schema)
    work = Work(part="p", inputs={name: tmp_path / f"{name}.parquet" for name in tables})
    write_table(tmp_path / "out.parquet", RightsWorker(settings, {})(work).rows, REFUSALS)
    found = [tuple(row.values()) for row in read_table(tmp_path / "out.parquet").to_pylist()]
    assert found == [
        ("a", None, "blocked-domain", "it is from bad.org"),
        ("b", None, "blocked-image", f"its pixel_hash is {PIXELS}"),
        ("b", "original", "blocked-text", "it has 'slur'"),
        ("c", "original-de", "blocked-text", "it has 'slur'"),
        ("c", "v", "blocked-text", "it has 'slur'"),
    ]
