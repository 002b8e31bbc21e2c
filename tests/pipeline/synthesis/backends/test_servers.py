"""Every product is asked, teaches its ways by its first refusal, and has its row in the docs."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from pipeline.synthesis.backends.settings import EndpointSettings
from pipeline.synthesis.extraction import find_object
from pipeline.synthesis.requests import ERROR_COLUMN
from tests.pipeline.synthesis.backends.asking import ask, request, settings_for
from tests.pipeline.synthesis.backends.products import ANSWER, PRODUCTS, serving

PAGE = Path(__file__).parents[4] / "docs" / "servers.md"
NUM_TOGETHER = 8


def learnt(replies: list[dict]) -> dict:
    """The settings that the notices of some replies tell a person to put into the recipe."""
    told = dict.fromkeys(line for reply in replies for line in reply["notices"].splitlines())
    found = re.findall(r"now asked with (\w+: .*?)\. Put that into the recipe", "\n".join(told))
    found.sort(key=len)  # one that was learnt after another holds it
    return {name: value for each in found for name, value in yaml.safe_load(each).items()}


def row_of(product, needed: dict) -> str:
    """The product's line in the table, after what it has taught."""
    words = "; ".join(f"`{name}: {json.dumps(each)}`" for name, each in needed.items())
    return f"| {product.name} | `{product.base_url}` | {words or 'nothing'} | {product.note} |"


def write_row(row: str) -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    name = row.split(" | ", maxsplit=1)[0]
    lines = [row if line.split(" | ")[0] == name else line for line in lines]
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_product_answers_after_its_first_refusal_and_has_its_row(product) -> None:
    requests = [request(f"r{number}") for number in range(NUM_TOGETHER)]
    with serving(product) as server:
        replies = ask(settings_for(server.url), *requests)
        assert [reply[ERROR_COLUMN] for reply in replies] == [""] * NUM_TOGETHER
        assert all(find_object(reply["generated_text"], ANSWER) == ANSWER for reply in replies)
        needed = learnt(replies)
        row = row_of(product, needed)
        if os.environ.get("ANYMIX_WRITE_FAULTS"):
            write_row(row)
        assert row in PAGE.read_text("utf-8").splitlines()
        # With these settings in the recipe, nothing is refused any more.
        server.bodies = [{}]  # what is only said of the first answer has been said
        replies = ask(settings_for(server.url, **needed), *requests)
        assert [reply["notices"] for reply in replies] == [""] * NUM_TOGETHER
        assert len(server.bodies) == 1 + NUM_TOGETHER


def test_page_has_no_rows_but_those_of_the_products() -> None:
    table = PAGE.read_text("utf-8").partition("Each row is written by the test")[0]
    names = re.findall(r"^\| (?!server )(.*?) \|", table, re.MULTILINE)
    assert names == [product.name for product in PRODUCTS]


def test_page_names_every_setting_that_can_be_learnt() -> None:
    page = PAGE.read_text("utf-8")
    names = ("response_format", "schema_bounds", "max_tokens_parameter", "drop_params")
    for name in (*names, "system_role"):
        assert name in EndpointSettings.model_fields
        assert f"`{name}: " in page
