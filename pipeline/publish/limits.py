"""What a card says against its corpus: each sentence follows from the recipe and the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.selection.settings import SelectSettings

_NUM_LANGUAGES = 5
"""Languages that are named."""


def known_limits(
    recipe: Mapping[str, Any],
    *,
    languages: Mapping[str, int] | None,
    has_llm_texts: bool,
    has_sounds: bool,
) -> list[str]:
    """A sentence for each.

    Args:
        recipe: the resolved recipe.
        languages: how many texts have been found to be in each, the commonest first; None where the
            sources are known to be English.
        has_llm_texts: whether texts of an LLM are in the shards.
        has_sounds: whether sounds are.
    """
    return [
        *_of_duplicates(recipe),
        *_of_checks(recipe),
        *_of_languages(languages),
        *(_of_llm(recipe["synthesis"], has_sounds=has_sounds) if has_llm_texts else ()),
    ]


def _of_duplicates(recipe: Mapping[str, Any]) -> Iterator[str]:
    settings = recipe["duplicates"]
    if not recipe["select"]["drop_duplicates"]:
        yield "Duplicates were not left out."
    elif settings["perceptual"] or settings["semantic"]:
        yield (
            "Of near copies one stays, up to the distances in the recipe; others may be in it, "
            "also across the splits."
        )
    else:
        yield (
            "Only exact duplicates were looked for: near duplicates may be in it, also across the "
            "splits."
        )


def _of_checks(recipe: Mapping[str, Any]) -> Iterator[str]:
    """What was looked for, how far that goes, and what was not looked for at all."""
    select = SelectSettings.model_validate(recipe["select"])
    against = [source["name"] for source in recipe["duplicates"]["against"]]
    unchecked = ["bias"]
    if recipe["ingest"]["opt_outs"] == "reject":
        yield (
            "Pictures whose file or download says that their owner does not want them mined were "
            "left out; opt-outs that are written elsewhere were not looked for."
        )
    else:
        yield (
            "Pictures whose owner does not want them mined are in it: their signals are in the "
            "column opt_outs of the table records."
        )
    if "num_personal" in select.rules:
        yield (
            "Of personal data, e-mail addresses and telephone numbers in texts were looked for, "
            "and nothing else."
        )
    else:
        unchecked.append("personal data")
    if "nsfw" in select.rules:
        yield "Pictures were checked for unsafe content by the score nsfw; texts were not."
    else:
        unchecked.append("unsafe content")
    if against and select.drop_duplicates:
        yield (
            f"Copies of pictures in {', '.join(against)} were left out; overlap with other "
            "evaluation sets was not looked for."
        )
    else:
        unchecked.append("overlap with evaluation sets")
    *others, last = unchecked
    listed = f"{', '.join(others)} or {last}" if others else last
    yield f"Nothing was checked for {listed}."


def _of_languages(languages: Mapping[str, int] | None) -> Iterator[str]:
    if languages is None:
        return
    if not languages:
        yield "The language of the texts was not determined."
        return
    total = sum(languages.values())
    shares = [f"{name} {count / total:.0%}" for name, count in languages.items()]
    num_others = len(shares[_NUM_LANGUAGES:])
    others = f" and {num_others} more" if num_others else ""
    yield (
        "The language of the texts was determined by a program, which a few words may mislead: "
        f"{', '.join(shares[:_NUM_LANGUAGES])}{others}."
    )


def _of_llm(synthesis: Mapping[str, Any], *, has_sounds: bool) -> Iterator[str]:
    if synthesis["vision"]:
        yield (
            "The LLM saw the pictures, with a longer side of at most "
            f"{synthesis['vision_max_side']} pixels; its texts may still say what is not there."
        )
    else:
        yield (
            "The LLM never saw the pictures: its texts come from the sources' captions and may add "
            "what is not there."
        )
    if has_sounds:
        yield "The LLM never heard the sounds."
