"""What is wrong with a text or its record, by the rules of a selection, as SQL over `texts`.

A fault is a struct of the columns that a reject has: reason, detail, score, threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.selection.cuts import Cut, Cuts, Limit, Quantile, false_accept_name, top_name
from pipeline.selection.sentences import (
    NO_ALTERNATIVE,
    reason_of,
    words_of_false_accept,
    words_of_quantile,
    words_of_top,
)
from pipeline.selection.settings import CHANCE, Group, Rule, Score, SelectSettings, Top


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """One thing that may be wrong with a text.

    Attributes:
        score: the score that decides.
        end: what the reason's code says of it, `below-threshold` for one.
        fails: SQL that is true where it is wrong.
        limit: SQL of the number that the score missed.
        detail: SQL of what makes that number, or of what the score found; NULL where it is plain.
    """

    score: Score
    end: str
    fails: str
    limit: str
    detail: str = "NULL::VARCHAR"

    def fault(self) -> str:
        """SQL of the reject's columns."""
        reason = quoted(reason_of(self.score, self.end))
        return fault(reason, self.detail, f"{self.score}::FLOAT", f"({self.limit})::FLOAT")

    def words(self) -> str:
        """SQL of what is wrong, in words."""
        side = "above" if self.end.startswith("above") else "below"
        shown = f"{self.score}::DOUBLE, ({self.limit})::DOUBLE"
        return f"format('{self.score} {{:.4g}} is {side} {{:.4g}}', {shown})"


def refusal_sql(settings: SelectSettings) -> str:
    """What is wrong with a text's record as a whole; NULL where nothing is."""
    if not settings.drop_duplicates:
        return "record_refusal"
    reason = "'duplicate-' || CASE method WHEN 'bytes' THEN 'image' ELSE method END"
    exact = "'the same content as record ' || duplicate_of || ', which stays'"
    detail = f"""CASE
        WHEN method = 'evaluation' THEN 'a copy of ' || duplicate_of || ', which is for evaluation'
        WHEN threshold > 0 THEN 'a near copy of record ' || duplicate_of || ', which stays'
        ELSE {exact} END"""
    near = "CASE WHEN threshold > 0 THEN {} END"
    found = fault(reason, detail, near.format("distance"), near.format("threshold"))
    return f"coalesce(record_refusal, CASE WHEN duplicate_of IS NOT NULL THEN {found} END)"


def fault_sql(settings: SelectSettings, cuts: Cuts) -> str:
    """The first thing that is wrong with a text; NULL where nothing is.

    A score that is null fails no check.
    """
    whens = ["WHEN text_refusal IS NOT NULL THEN text_refusal"]
    whens += [f"WHEN {check.fails} THEN {check.fault()}" for check in _checks(settings.rules, cuts)]
    if settings.any:
        whens.append(_no_alternative([[*_checks(rules, cuts)] for rules in settings.any]))
    for number, top in enumerate(settings.top):
        check = _check_top(top, cuts[top_name(number)])
        whens.append(f"WHEN {check.fails} THEN {check.fault()}")
    return f"CASE {' '.join(whens)} END"


def fault(reason: str, detail: str, score: str = "NULL::FLOAT", limit: str = "NULL::FLOAT") -> str:
    """SQL of a fault, of the SQL of its fields."""
    return f"{{'reason': {reason}, 'detail': {detail}, 'score': {score}, 'threshold': {limit}}}"


def subjects(top: Top) -> str:
    """SQL of the texts that a `top` is about."""
    return "style IS NOT NULL" if top.within == "style" else "is_caption"


def quoted(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _checks(rules: Mapping[Score, Rule], cuts: Cuts) -> Iterator[_Check]:
    """The limits of some rules, in the order in which they are tried."""
    for score, rule in rules.items():
        lower, words = None, ""
        if rule.quantile is not None:
            cut = cuts[Quantile(score=score, share=rule.quantile, within=rule.within).name]
            lower = _of_group(cut, rule.within, partial(_value, score))
            words = words_of_quantile(rule.quantile)
        elif rule.false_accept is not None:
            lower = _value(score, cuts[false_accept_name(rule.false_accept)].whole)
            words = words_of_false_accept(rule.false_accept)
        elif rule.min is not None:
            lower = _number(score, rule.min)
        if lower is not None:
            yield _Check(
                score=score, end="below-threshold", fails=f"{score} < {lower}", limit=lower,
                detail=_detail(score, words, rule.within),
            )  # fmt: skip
        if rule.max is not None:
            upper = _number(score, rule.max)
            yield _Check(
                score=score, end="above-threshold", fails=f"{score} > {upper}", limit=upper,
                detail=_detail(score, "", None),
            )  # fmt: skip


def _check_top(top: Top, cut: Cut) -> _Check:
    limit = _of_group(cut, top.within, partial(_value, top.score))
    tie = _of_group(cut, top.within, lambda limit: _number(CHANCE, limit.chance))
    return _Check(
        score=top.score,
        end="below-top",
        fails=f"{subjects(top)} AND ({top.score} < {limit}"
        f" OR ({top.score} = {limit} AND {CHANCE} < {tie}))",
        limit=limit,
        detail=_detail(top.score, words_of_top(top), top.within),
    )


def _no_alternative(sets: Sequence[Sequence[_Check]]) -> str:
    """The case in which every set of rules has one that fails."""
    fails = " AND ".join(
        f"({' OR '.join(f'coalesce({check.fails}, false)' for check in checks)})" for checks in sets
    )
    words = ", ".join(_first(checks, [check.words() for check in checks]) for checks in sets)
    checks = sets[0]
    score = _first(checks, [f"{check.score}::FLOAT" for check in checks])
    limit = _first(checks, [f"({check.limit})::FLOAT" for check in checks])
    found = fault(quoted(NO_ALTERNATIVE), f"concat_ws('; ', {words})", score, limit)
    return f"WHEN {fails} THEN {found}"


def _first(checks: Sequence[_Check], values: Sequence[str]) -> str:
    """SQL of the value that stands for the first check that fails."""
    pairs = zip(checks, values, strict=True)
    return f"CASE {' '.join(f'WHEN {check.fails} THEN {value}' for check, value in pairs)} END"


def _of_group(cut: Cut, within: Group | None, number: Callable[[Limit], str]) -> str:
    """SQL of a number of the text's group; a group that is new has the whole corpus's."""
    groups = cut.groups.items() if within else ()
    cases = " ".join(f"WHEN {quoted(name)} THEN {number(limit)}" for name, limit in groups)
    return f"CASE {within} {cases} ELSE {number(cut.whole)} END" if cases else number(cut.whole)


def _value(score: Score, limit: Limit) -> str:
    return _number(score, limit.value)


def _detail(score: Score, words: str, within: Group | None) -> str:
    """SQL of a reject's detail: which check a caption failed, and what makes the limit."""
    found = "caption_fault" if score == "caption_quality" else "NULL::VARCHAR"
    if not words:
        return found
    limit = f"{quoted(f'{words} of the {within} ')} || {within}" if within else quoted(words)
    return f"concat_ws('; ', {found}, {limit})"


def _number(score: Score, value: float | None) -> str:
    """A limit as SQL, as precise as its score, so that a score that is equal reaches it.

    It is given as text: DuckDB takes digits for a decimal, which rounds otherwise.
    """
    kind = "DOUBLE" if score == CHANCE else "FLOAT"
    return f"NULL::{kind}" if value is None else f"'{value!r}'::{kind}"
