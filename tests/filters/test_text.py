import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.settings import ScoreSettings
from filters.text import text_scores


def scores(text, **limits):
    return text_scores(text, ScoreSettings(**limits))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a red apple on a table", None),
        ("flag of Åland Islands", None),
        ("rojo 🍎 manzana", None),
        ("кот на окне", None),
        ("一只红色的苹果", None),
        ("猫", "too-short"),
        ("7", "too-short"),
        ("", "empty"),
        ("   ", "empty"),
        ("IMG_1234.jpg", "file-name"),
        ("DSC00042", "file-name"),
        ("untitled", "file-name"),
        ("Untitled-1", "file-name"),
        ("my-photo_final.JPEG", "file-name"),
        ("Screenshot 2021-03-04 at 10.11.12 PM", "file-name"),
        ("summer holiday (12).heic", "file-name"),
        ("photo of a dog", None),
        ("image 3", "file-name"),
        ("HASH(0x55d3c8a0)", "boilerplate"),
        ("hash(0x55) of the cat", "boilerplate"),
        ("[object Object]", "boilerplate"),
        ("undefined", "boilerplate"),
        ("No image", "boilerplate"),
        ("Red shoes - click to enlarge", "boilerplate"),
        ("Click on the image for details", "boilerplate"),
        ("{{ product.title }}", "boilerplate"),
        ("Image may contain: one person", "boilerplate"),
        ("a photographer clicks her camera", None),
        ("see https://example.org/a", "url"),
        ("www.example.org has it", "url"),
        ("from example.org/shoes today", "url"),
        ("cats and/or dogs at 9.30/10.00", None),
        ("write to me@example.org", "e-mail"),
        ("jane.doe+cats@mail.example.co.uk sells", "e-mail"),
        ("follow @cats on the web", None),
        ("two tickets @ 5.50 each", None),
        ("call (555) 010-0199 now", "phone"),
        ("ring +44 20 7946 0958 for a visit", "phone"),
        ("Berlin 030 1234567", "phone"),
        ("Tel.: 5550199 for rent", "phone"),
        ("a view of 2021-05-01 at 1920 x 1080", None),
        ("opened on 01/05/2021, shown 05.06.2019 - 07.08.2019", None),
        ("ISBN 978-3-16-148410-0 and 0-306-40615-2", None),
        ("a crowd of 1 000 000 people in 1995-1996", None),
        ("!!! ---", "no-words"),
        ("buy buy buy buy now", "repetition"),
        ("buy now buy now buy now", "repetition"),
        ("kiss dark skin tone medium skin tone", None),
        ("word " * 401, "too-long"),
        ("x" * 101, "no-spaces"),
    ],
)
def test_captions_that_cannot_teach_anything_fail_by_name(text, fault):
    found = scores(text)
    assert found.caption_fault == fault
    assert (found.caption_quality == 1) == (fault is None)


def test_quality_falls_with_each_check_that_fails():
    one = scores("IMG_1234.jpg").caption_quality
    two = scores("").caption_quality
    assert 0 <= two < one < 1


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a red apple lies on the table in the kitchen", "en"),
        ("ein roter Apfel liegt auf dem Tisch in der Küche", "de"),
        ("une pomme verte sur la table de la cuisine", "fr"),
        ("красное яблоко лежит на столе", "ru"),
        ("桌子上有一个红苹果", "zh"),
        ("12 + 34", None),
        ("🍎🍎", None),
    ],
)
def test_a_text_has_the_language_that_it_is_written_in(text, language):
    found = scores(text)
    assert found.language == language
    assert (found.language_score is None) == (language is None)


def test_words_are_counted_in_every_script():
    assert scores("it isn't a well-known cat").num_words == 6
    assert scores("一只猫").num_words == 3
    assert scores("").num_words == 0


def test_repetition_is_the_share_of_what_comes_most():
    assert scores("no one here").repetition == 0
    assert scores("a cat and a dog").repetition == pytest.approx(2 / 5)
    assert scores("sale now sale now sale now today").repetition == pytest.approx(6 / 7)
    assert scores("ha " * 50).repetition == 1


def test_addresses_and_personal_data_are_counted():
    found = scores("mail a@b.org or c@d.org, call 555-010-0199, see http://b.org and www.d.org")
    assert (found.num_personal, found.num_urls) == (3, 2)


def test_what_is_too_short_or_too_long_is_the_recipes_choice():
    assert scores("a cat", min_caption_characters=6).caption_fault == "too-short"
    assert scores("a cat", max_caption_words=1).caption_fault == "too-long"
    assert scores("a cat a dog", max_repeated_share=0.4).caption_fault == "repetition"


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_every_text_has_scores_in_their_ranges(text):
    found = scores(text)
    assert 0 <= found.caption_quality <= 1
    assert (found.caption_quality == 1) == (found.caption_fault is None)
    assert 0 <= found.repetition <= 1
    assert found.num_words <= len(text)
    assert found.language_score is None or 0 <= found.language_score <= 1


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "0",
        " ",
        ".",
        "-",
        "a.",
        "a@",
        "+1",
        "0 ",
        "(",
        "{{",
        "http",
        "\x00",
        "\u202e",
        "猫",
        "a b ",
    ],
)
def test_a_hostile_caption_takes_no_longer_than_a_long_one(unit):
    # A pattern that looks back from every place would take minutes: the test's timeout.
    assert scores(unit * (100_000 // len(unit))).caption_fault is not None
