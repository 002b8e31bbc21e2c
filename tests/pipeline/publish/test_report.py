"""The page shows what happened, stands alone, and cannot be written into by a caption."""

import json
import re
from base64 import b64decode
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jobs.embedding import text_encoder
from jobs.run import open_corpus
from pipeline.engine.corpus import Corpus
from pipeline.errors import UserError
from pipeline.images import decode
from pipeline.publish import facts
from pipeline.publish.report import write_report
from pipeline.publish.report.queries import stage_times
from pipeline.publish.report.training import describe

_VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, and its text without tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def html(root: Path, run: Path) -> str:
    corpus = open_corpus(root)[1]
    return write_report(corpus, run, embed=text_encoder(corpus)).read_text()


def test_records_of_the_sources_add_up_to_those_at_the_top(html: str, corpus: Corpus) -> None:
    words = " ".join(Page(html).words.split())
    held = sum(row.num_records for row in facts.rights_facts(corpus, limit=9)[0])
    more = re.search(r"(\d+) more records were left out at ingest", words)
    assert more is not None
    assert held + int(more[1]) == facts.record_outcome(corpus).given


def test_page_is_well_formed_and_needs_nothing_but_itself(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert not page.all("script")
    assert not page.all("link")
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert "url(" not in html
    links = {str(link["href"]) for link in page.all("a")} - {"README.md"}
    ids = {f"#{attributes['id']}" for _, attributes in page.elements if "id" in attributes}
    assert links <= ids
    assert len(html) < 5_000_000


def test_every_picture_and_drawing_says_in_words_what_it_shows(html: str) -> None:
    page = Page(html)
    assert len(page.all("img")) > 20
    assert len(page.all("svg")) >= 6
    assert all(image["alt"] for image in page.all("img"))
    assert all(drawing["aria-label"] for drawing in page.all("svg"))


def test_caption_with_a_script_is_shown_and_not_run(html: str) -> None:
    assert "<script" not in html
    assert "onerror=alert(1)>" not in html
    assert "&lt;script&gt;" in html
    assert '<script>alert("1")</script> | a *cup*' in Page(html).words


def test_flow_of_records_adds_up_on_the_page(html: str, corpus: Corpus) -> None:
    section = _section(html, "flow")
    body, foot = section.split("<tbody>")[1].split("<tfoot>")
    ends = re.findall(r'<td class="number">([\d,]+)</td><td class="number">[\d.]+ %', body)
    (given,) = re.findall(r'<td class="number">([\d,]+)</td><td class="number">100.0 %', foot)
    assert sum(map(int, ends)) == int(given) == facts.record_outcome(corpus).given


def test_examples_show_each_kind_of_text_with_its_verdict(html: str) -> None:
    words = Page(_section(html, "texts")).words
    for kind in ("source's caption", "LLM's caption", "in a style", "negative"):
        assert words.count(kind) >= 10
    assert "synthesis-malformed-json" in words
    assert "this is not JSON" in words


def test_examples_show_what_was_refused_and_why_before_what_was_taken(rewritten: Path) -> None:
    html = write_report(open_corpus(rewritten)[1], None, embed=None).read_text()
    examples = _section(html, "texts").split("<li>")[1:]
    assert len(examples) == 20
    for example in examples:
        words = " ".join(Page(example.partition("</li>")[0]).words.split())
        caption, first, second = re.split(r"attempt \d ", words)
        assert caption.startswith("source's caption")
        if "<script>" in caption:  # no text with it is taken
            continue
        said = 'synthesis-ungrounded it says "turquoise", the record does not'
        assert said in first
        assert said not in second
        assert re.search(r"LLM's caption: sentence ?A picture of .* taken", second)


def test_texts_are_compared_by_kind_and_by_style_beside_the_sources_captions(
    html: str, rewritten: Path
) -> None:
    kinds, forms, styles = _tables(
        write_report(open_corpus(rewritten)[1], None, embed=None).read_text()
    )
    assert list(kinds) == [
        "source's caption", "all LLM texts", "LLM's caption", "in a style", "negative",
        "about the subject", "leads on",
    ]  # fmt: skip
    texts, distinct_1, distinct_2, entropy, self_bleu, near, spread = kinds["all LLM texts"]
    assert int(texts) == sum(int(kinds[kind][0]) for kind in list(kinds)[2:])
    assert 0 < float(distinct_1) < float(distinct_2) < 1
    assert 1 < float(entropy) < 7
    assert 0 < float(self_bleu) < 1
    assert near.endswith(" %")
    assert spread == "-"
    assert forms["absent"][4:6] == ["1.00", "100.0 %"]  # it is always a dog
    assert len(styles) == 8  # the source's captions, and all styles but the one never written
    (everything,) = (row for name, row in _tables(html)[0].items() if name == "all LLM texts")
    assert 0 < float(everything[-1]) < 2


def test_gallery_holds_the_pairs_on_both_sides_of_the_cut(html: str, corpus: Corpus) -> None:
    section = _section(html, "gallery")
    above, below = section.split("Left out, just below")
    (cut,) = [r.says.least for r in facts.rule_facts(corpus) if r.says.what == "clip_score"]
    scores = r'<p class="figure">(-?[\d.]+)'
    assert re.findall(scores, above)
    assert re.findall(scores, below)
    assert all(float(score) >= cut - 5e-4 for score in re.findall(scores, above))
    assert all(float(score) <= cut + 5e-4 for score in re.findall(scores, below))


def test_pictures_stand_above_what_the_tokenizer_makes_of_them(html: str, corpus: Corpus) -> None:
    (shown,) = [each for each in Page(html).all("img") if "the tokenizer makes" in str(each["alt"])]
    contents = b64decode(str(shown["src"]).partition(",")[2])
    sheet = (corpus.models["vq"] / "reconstructions.png").read_bytes()
    # Compressed, so that the colours of single pixels run into one another; lightness stays.
    on_page, held = (np.asarray(decode(each).convert("L"), int) for each in (contents, sheet))
    assert on_page.shape == held.shape
    assert np.abs(on_page - held).mean() < 8


def test_training_is_shown_with_its_test_in_one_sentence(html: str) -> None:
    words = Page(_section(html, "training")).words
    assert "4 steps" in words
    assert "held-out pairs" in words
    assert "asked for" in words


def test_each_stage_is_shown_with_the_mix_that_it_asked_for(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "train:\n  mix: {unit: tokens, text: 2, image: 2, mixed: 0}\n"
        "  stages: [{mix: {unit: samples, text: 0, image: 1}}, {mix: null}, {mix: {text: 1}}]\n"
    )
    line = {"tokens": 9, "tokens_per_s": 1, "train": {}, "held_out": {"all": 1.0}}
    both = {"text": 0.4, "image": 0.6}
    looks = [(0, {"image": 1.0}), (1, {"text": 1.0, "image": 0.0}), (1, both)]
    lines = [
        line | {"step": n, "stage": stage, "shares": {"tokens": share, "samples": share}}
        for n, (stage, share) in enumerate(looks, 1)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    first, second = describe(tmp_path).mixes
    assert (first.stage, first.unit, first.streams) == (1, "samples", [("image", 1.0, 1.0, 1.0)])
    assert (second.stage, second.unit) == (2, "tokens")
    assert second.streams == [("text", 0.5, 0.4, 0.4), ("image", 0.5, 0.6, 0.6)]


def test_page_of_an_unchanged_corpus_is_the_same_to_the_byte(root: Path, run: Path) -> None:
    pages = [
        write_report(corpus, run, embed=text_encoder(corpus)).read_bytes()
        for corpus in (open_corpus(root)[1], open_corpus(root)[1])
    ]
    assert pages[0] == pages[1]


def test_sections_without_anything_yet_say_so(begun: Path) -> None:
    html = write_report(open_corpus(begun)[1], None, embed=None).read_text()
    page = Page(html)
    assert page.open == []
    assert html.count('class="nothing"') >= 6
    assert "not decided yet" in page.words
    assert "Nothing has been scored yet." in page.words


def test_a_run_without_a_training_is_an_error(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no training"):
        write_report(open_corpus(begun)[1], tmp_path / "empty", embed=None)


def _section(html: str, name: str) -> str:
    return html.partition(f'id="{name}"')[2].partition("</section>")[0]


def _tables(html: str) -> list[dict[str, list[str]]]:
    """The cells of the tables that compare texts, by the first cell of each row."""
    tables = re.findall(r'<div class="scroll">(.*?)</div>', _section(html, "diversity"), re.DOTALL)
    rows = [re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:] for table in tables]
    cells = [[re.findall(r"<td.*?>(.*?)</td>", row) for row in table] for table in rows]
    return [{unescape(name): figures for name, *figures in table} for table in cells]


def test_times_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(
        '{"time": "t1", "stage": "ingest", "part": "a", "seconds": 1, "num_rows": 5}\n'
        '{"time": "t2", "stage": "ingest", "parts": 1, "seconds": 2.5}\n'
    )
    (time,) = stage_times(path)
    assert (time.stage, time.num_runs, time.num_parts, time.seconds) == ("ingest", 1, 1, 2.5)


def test_scores_are_shown_beside_those_of_wrong_pairs_and_a_weak_score_is_warned_of(
    html: str,
) -> None:
    section = _section(html, "scores")
    words = Page(section).words
    assert "tells true pairs from shuffled ones with an AUC of" in words
    assert "too weak to filter by" in words  # two steps of training teach nothing
    assert "What is selected by it leaves out good pairs" in words
    assert {"shuffled pairs", "true pairs"} <= set(re.findall(r">([a-z ]+)</text>", section))
