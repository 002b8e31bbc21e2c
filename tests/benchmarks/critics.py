"""The critics against planted errors: good texts of OpenMoji's names, and the same with a fault.

    python -m tests.benchmarks.critics [--json]

Half of the names, by hash, and half of the ways to put them into a sentence were there for tuning;
the figures are those of the other half of both, and seconds suffice for all. The good texts state
what the name states and no more. A planted error is what the issue of grounding is about (a wrong
colour, number or object), or one of its neighbours (a thing, a person, a skin tone, a name or a
side that the record does not have).

Sentences that are put together keep the name's words, so that they are the easy case. The hard one
are those of `paraphrases.yaml`, names in a person's own words, from the held-out half.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import emoji
import numpy as np
import yaml
from rapidfuzz import fuzz

from pipeline.engine.fingerprint import unit_interval
from pipeline.synthesis.critics import REASONS, Candidate, CriticSettings, critique
from pipeline.synthesis.critics.grounding import grounding
from tests.benchmarks.result import Result, show

SETTINGS = CriticSettings()
COLOURS = ("red", "blue", "green", "yellow", "purple", "brown", "black", "white", "pink", "grey")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
OTHER_PERSON = {
    "man": "woman", "woman": "man", "boy": "girl", "girl": "boy", "men": "women", "women": "men",
}  # fmt: skip
OTHER_SIDE = {
    "left": "right", "right": "left", "up": "down", "down": "up", "upward": "downward",
    "upwards": "downwards", "clockwise": "counterclockwise",
}  # fmt: skip
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
THINGS = (
    "tulip", "hammer", "violin", "lobster", "castle", "umbrella", "pizza", "tractor", "penguin",
    "candle", "helicopter", "pumpkin", "anchor", "guitar", "cactus", "suitcase",
)  # fmt: skip
_TONE = re.compile(r" (light|medium-light|medium-dark|medium|dark) skin tone")

TUNING_FORMS = (
    "A picture of {thing}{tone}.",
    "The drawing shows {thing}{tone}.",
    "{thing}{tone}, drawn as an icon.",
    "An image of {thing}{tone}.",
)
HELD_OUT_FORMS = (
    "Here we can see {thing}{tone}.",
    "There is {thing}{tone} on this emoji.",
    "This illustration depicts {thing}{tone}.",
    "What is shown here is simply {thing}{tone}.",
)
TUNING_TONES = (" with {} skin", " with a {} skin tone")
HELD_OUT_TONES = (", whose skin is {}", " and {}-toned skin")
FOREIGN = (
    "Ein Bild von einem roten Apfel auf einem Tisch.",
    "Une photo d'un marteau sur une table en bois.",
    "Una imagen de una mujer corriendo por el parque.",
    "Un disegno di un gatto che dorme sul divano.",
    "Изображение красного яблока на столе.",
    "赤いリンゴの絵です。",
    "Een tekening van een man die op straat loopt.",
    "Zdjęcie czerwonego jabłka leżącego na stole.",
)
TALK = (
    "As an AI language model, I cannot see pictures.",
    "I'm sorry, but I can't help with that.",
    "Sure! Here is a caption for the picture.",
    "Caption: {thing}.",
    "Here is the rewritten text: {thing}.",
    "I cannot describe {thing} without more context.",
    "<b>{thing}</b>",
    "**{thing}** in bold.",
    "```json {thing}```",
    "The user wants {thing} to be rewritten as the prompt says.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A name, cut into the thing and its skin tones."""

    name: str
    thing: str
    tones: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A record, a text for it, and the kind of its fault; empty for a good text."""

    record: Record
    text: str
    fault: str = ""


def records() -> list[Record]:
    """The names of all emoji, as the source `openmoji` gives them."""
    found = set()
    for text, data in emoji.EMOJI_DATA.items():
        name = data["en"].strip(":").replace("_", " ")
        is_flag = len(text) == 2 and all(0x1F1E6 <= ord(point) < 0x1F200 for point in text)
        found.add(f"flag of {name}" if is_flag else name)
    return [
        Record(name=name, thing=_TONE.sub("", name), tones=tuple(_TONE.findall(name)))
        for name in sorted(found)
    ]


def is_held_out(record: Record) -> bool:
    """Whether a name was kept from tuning."""
    return unit_interval("critics", record.thing) < 0.5


def good_texts(record: Record, forms: Sequence[str], tones: Sequence[str]) -> Iterator[Case]:
    """A sentence of each form, and the ways that suit some names only."""
    tone = tones[len(record.name) % len(tones)].format(record.tones[0]) if record.tones else ""
    tone = tone if len(set(record.tones)) == 1 else ""
    for form in forms:
        text = form.format(thing=with_article(record.thing), tone=tone)
        yield Case(record=record, text=text[:1].upper() + text[1:])
    if match := re.fullmatch(r"(man|woman|person) (\w+ing)", record.thing):
        who, doing = match.groups()
        yield Case(record=record, text=f"A {who} who is {doing}{tone}.")
        yield Case(record=record, text=f"{with_article(doing).capitalize()} {who}{tone}.")
    if match := re.fullmatch(r"flag of (.+)", record.thing):
        yield Case(record=record, text=f"The national flag of {match.group(1)}.")
    if match := re.fullmatch(rf"({'|'.join(COLOURS)}) (\w+)", record.thing):
        yield Case(record=record, text=f"A {match.group(2)} that is {match.group(1)}.")


def with_article(thing: str) -> str:
    """A thing with a or an, or as it is where it is many or a name."""
    last = thing.rsplit(maxsplit=1)[-1]
    if thing[0].isdigit() or thing[0].isupper() or (last.endswith("s") and last[-2:] != "ss"):
        return thing
    if thing.startswith(("men", "women", "people", "flag of", "kiss")):
        return f"the {thing}" if thing.startswith("flag") else thing
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def wrong_colour(case: Case, rng: random.Random) -> str:
    """Another colour where there is one, else a colour that nothing says."""
    said = [colour for colour in COLOURS if re.search(rf"\b{colour}\b", case.text)]
    others = [colour for colour in COLOURS if colour not in case.record.name]
    if said:
        return re.sub(rf"\b{said[0]}\b", rng.choice(others), case.text)
    return _before_thing(case, rng.choice(others))


def wrong_number(case: Case, rng: random.Random) -> str:
    """Another number where there is one, else several of what is one."""
    pattern = rf"\b(\d+|{'|'.join(NUMBERS)})\b"
    others = [number for number in NUMBERS if number not in case.record.name]
    if re.search(pattern, case.text):
        return re.sub(pattern, rng.choice(others[3:]), case.text, count=1)
    thing = case.record.thing
    many = thing if thing.endswith("s") else f"{thing}s"
    new = f"{rng.choice(others[3:])} {many}"
    return _swap(case.text, rf"\b(?:an? |the )?{re.escape(thing)}\b", new)


def wrong_object(case: Case, rng: random.Random) -> str:
    """Another thing in place of the last word of the thing."""
    last = case.record.thing.split()[-1]
    return _swap(case.text, rf"\b{re.escape(last)}(?!\w)", _other_thing(case, rng))


def added_object(case: Case, rng: random.Random) -> str:
    """A thing beside it that the record does not have."""
    return f"{case.text.rstrip('.')} next to {with_article(_other_thing(case, rng))}."


def wrong_person(case: Case, rng: random.Random) -> str:
    """A woman for a man, and so on."""
    pattern = rf"\b({'|'.join(OTHER_PERSON)})\b"
    if len(set(re.findall(pattern, case.record.name))) != 1:
        return case.text
    return re.sub(pattern, lambda match: OTHER_PERSON[match.group()], case.text)


def wrong_tone(case: Case, rng: random.Random) -> str:
    """Another skin tone; of medium-light and light, the other is a part of the word."""
    if not case.record.tones:
        return case.text
    said = set(case.record.tones[0].split("-"))
    others = [tone for tone in TONES if not said.issuperset(tone.split("-"))]
    return _swap(case.text, rf"\b{case.record.tones[0]}(?=\W)", rng.choice(others))


def wrong_name(case: Case, rng: random.Random) -> str:
    """The flag of another country."""
    others = ["Italy", "Brazil", "Kenya", "Norway", "Vietnam", "Peru", "Chad"]
    country = case.record.thing.removeprefix("flag of ")
    if country == case.record.thing:
        return case.text
    return case.text.replace(country, rng.choice([each for each in others if each != country]))


def wrong_side(case: Case, rng: random.Random) -> str:
    """Left for right, up for down."""
    pattern = rf"\b({'|'.join(OTHER_SIDE)})\b"
    if len(set(re.findall(pattern, case.record.name))) != 1:
        return case.text
    return re.sub(pattern, lambda match: OTHER_SIDE[match.group()], case.text)


ASKED_FOR: dict[str, Callable[[Case, random.Random], str]] = {
    "wrong colour": wrong_colour,
    "wrong number": wrong_number,
    "wrong object": wrong_object,
}
NEIGHBOURS: dict[str, Callable[[Case, random.Random], str]] = {
    "added object": added_object,
    "wrong person": wrong_person,
    "wrong skin tone": wrong_tone,
    "wrong country": wrong_name,
    "wrong side": wrong_side,
}


def plant(good: Iterable[Case]) -> list[Case]:
    """Every good text with each of the faults that it can have."""
    planted = []
    for case in good:
        for fault, change in (ASKED_FOR | NEIGHBOURS).items():
            text = change(case, random.Random(f"{fault} {case.text}"))  # noqa: S311
            if text != case.text:
                planted.append(Case(record=case.record, text=text, fault=fault))
    return planted


def paraphrases(group: str) -> tuple[list[Case], list[Case]]:
    """Names in a person's own words, and the same with a fault each of the three kinds."""
    content = yaml.safe_load(Path(__file__).with_name("paraphrases.yaml").read_text("utf-8"))
    by_name = {record.name: record for record in records()}
    good, planted = [], []
    for name, marked in content[group].items():
        record = by_name[name]
        assert is_held_out(record), f"{name} was there for tuning"
        good.append(Case(record=record, text=marked.replace("[", "").replace("]", "")))
        ((thing,), rng) = re.findall(r"\[(.+)\]", marked), random.Random(name)  # noqa: S311
        colour = rng.choice([each for each in COLOURS if each not in marked])
        count = rng.choice([each for each in NUMBERS[1:] if each not in name])
        many = thing if thing.endswith("s") else f"{thing}s"
        changes = {
            "wrong colour": re.sub(r"\[.+\]", f"{colour} {thing}", marked),
            "wrong number": re.sub(r"(\b(An?|The|Some) )?\[.+\]", f"{count} {many}", marked),
            "wrong object": re.sub(r"\[.+\]", _other_thing(good[-1], rng), marked),
        }
        planted += [Case(record=record, text=text, fault=fault) for fault, text in changes.items()]
    return good, planted


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """The probability that a good text scores above a bad one; a draw is half."""
    scores, counts = np.unique([*good, *bad], return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    of_good = ranks[np.searchsorted(scores, good)].sum()
    return float((of_good - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def candidate(case: Case, form: str = "sentence") -> Candidate:
    """The text as the critics see it."""
    return Candidate(form=form, text=case.text, captions=(case.record.name,))


def measure() -> Iterator[Result]:
    """The figures of the held-out half, and the tuned half's for comparison."""
    every = records()
    halves = {
        "held out": [each for each in every if is_held_out(each)],
        "tuned on": [each for each in every if not is_held_out(each)],
    }
    ways = {"held out": (HELD_OUT_FORMS, HELD_OUT_TONES), "tuned on": (TUNING_FORMS, TUNING_TONES)}
    good = {
        half: [case for each in names for case in good_texts(each, *ways[half])]
        for half, names in halves.items()
    }
    yield from _grounding(*paraphrases("fresh"), "own words")
    yield from _grounding(*paraphrases("read"), "own words, read before")
    yield from _grounding(good["held out"], plant(good["held out"]), "put together")
    tuned = _scores(good["tuned on"]), _scores(plant(good["tuned on"]))
    yield Result(name="grounding: all errors, the half tuned on", value=auc(*tuned), unit="AUC")
    yield from _contrast(good["held out"])
    yield from _others(good["held out"])


def _grounding(good: Sequence[Case], planted: Sequence[Case], way: str) -> Iterator[Result]:
    of_good, of_bad = _scores(good), _scores(planted)
    rival_good, rival_bad = _rival(good), _rival(planted)
    faults = {fault: {fault} for fault in dict.fromkeys(case.fault for case in planted)}
    for name, group in (faults | {"colour, number or object": set(ASKED_FOR)}).items():
        at = [index for index, case in enumerate(planted) if case.fault in group]
        caught = sum(of_bad[index] < SETTINGS.min_grounding for index in at) / len(at)
        rival = auc(rival_good, [rival_bad[index] for index in at])
        yield Result(
            name=f"grounding, {way}: {name}",
            value=auc(of_good, [of_bad[index] for index in at]),
            unit="AUC",
            goal=">= 0.9",
            rival=f"token_set_ratio {rival:.3f}; {caught:.1%} of {len(at):,} fail",
        )
    failing = sum(score < SETTINGS.min_grounding for score in of_good) / len(good)
    yield Result(name=f"grounding, {way}: good texts that fail", value=100 * failing, unit="%",
                 rival=f"of {len(good):,}")  # fmt: skip


def _contrast(good: Sequence[Case]) -> Iterator[Result]:
    """Negatives: a sentence with a fault is a good one, one that is true is not."""
    planted = [case for case in plant(good) if case.fault in ASKED_FOR]
    right = [grounding(candidate(case, "absent"), SETTINGS).score for case in planted]
    wrong = [grounding(candidate(case, "absent"), SETTINGS).score for case in good]
    yield Result(name="grounding: negatives, contrary against true", value=auc(right, wrong),
                 unit="AUC", goal=">= 0.9")  # fmt: skip


def _others(good: Sequence[Case]) -> Iterator[Result]:
    """What the other critics let through and what they catch."""
    start = time.perf_counter()
    verdicts = [critique(candidate(case), SETTINGS) for case in good]
    took = time.perf_counter() - start
    for index, critic in enumerate(verdict.critic for verdict in verdicts[0]):
        reasons = {found[index].reason for found in verdicts} - {""}
        assert reasons <= set(REASONS)
        failing = sum(bool(found[index].reason) for found in verdicts)
        yield Result(name=f"{critic}: good texts that fail", value=100 * failing / len(good),
                     unit="%", rival=", ".join(sorted(reasons)))  # fmt: skip
    some = good[:: max(1, len(good) // 400)]
    shifted = [*some[200:], *some[:200]]
    faults = {
        "language: other languages": [(each, text) for each in some[:50] for text in FOREIGN],
        "language: talk and markup": [
            (each, text.format(thing=each.record.thing)) for each in some[:50] for text in TALK
        ],
        "repetition: the thing twice": [
            (each, f"{each.text.rstrip('.')} with {with_article(each.record.thing)}.")
            for each in some
        ],
        "novelty: the name as a sentence": [(each, f"The {each.record.name}.") for each in some],
        "fidelity: another record's text": [
            (each, other.text) for each, other in zip(some, shifted, strict=True)
        ],
    }
    for name, cases in faults.items():
        critic = name.partition(":")[0]
        found = [
            next(v for v in critique(candidate(Case(record=each.record, text=text)), SETTINGS)
                 if v.critic == critic)
            for each, text in cases
        ]  # fmt: skip
        caught = 100 * sum(bool(verdict.reason) for verdict in found) / len(found)
        yield Result(name=f"{name}, caught", value=caught, unit="%", rival=f"of {len(found):,}")
    yield Result(name="all critics", value=len(good) / took, unit="texts/s")


def _scores(cases: Sequence[Case]) -> list[float]:
    return [grounding(candidate(case), SETTINGS).score for case in cases]


def _rival(cases: Sequence[Case]) -> list[float]:
    return [fuzz.token_set_ratio(case.record.name, case.text.lower()) for case in cases]


def _before_thing(case: Case, word: str) -> str:
    return _swap(case.text, re.escape(case.record.thing), f"{word} {case.record.thing}")


def _swap(text: str, pattern: str, new: str) -> str:
    return re.sub(pattern, lambda _: new, text, count=1, flags=re.IGNORECASE)


def _other_thing(case: Case, rng: random.Random) -> str:
    return rng.choice([thing for thing in THINGS if thing not in case.record.name.lower()])


def main() -> None:
    """Measure; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    sys.exit(not show(measure(), as_json=parser.parse_args().json))


if __name__ == "__main__":
    main()
