"""What the loop of asking and judging gave: accepted texts by attempt, kind and style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.engine.corpus import Corpus
from pipeline.synthesis.forms import FORMS

_ASKED = """
    WITH asked AS (
        SELECT record_id, attempt, kind, style, unnest(forms) AS form FROM answers
        WHERE role = 'write'
    ), accepted AS (
        SELECT record_id, attempt, form FROM variants
    )
    SELECT {by}, count(*), count(accepted.form) FROM asked
    LEFT JOIN accepted USING (record_id, attempt, form)
    {where} GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many of some texts were taken by the critics.

    Attributes:
        name: the attempt, the kind or the style.
        num_asked: texts that were asked for.
        num_accepted: those that were taken.
    """

    name: str
    num_asked: int
    num_accepted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What the tokens of some attempts gave.

    Attributes:
        name: which attempts.
        num_accepted: texts that were taken.
        num_tokens: output tokens, also of what was not taken.
    """

    name: str
    num_accepted: int
    num_tokens: int

    @property
    def per_thousand_tokens(self) -> float:
        """Accepted texts a thousand tokens."""
        return 1000 * self.num_accepted / self.num_tokens if self.num_tokens else 0.0


def counts(corpus: Corpus) -> Mapping[str, int]:
    """Records that the LLM was asked about, those that have a text of it, and tokens written."""
    ((asked, answered, tokens),) = corpus.query(
        "SELECT count(DISTINCT record_id), (SELECT count(DISTINCT record_id) FROM variants),"
        " coalesce(sum(num_output_tokens), 0)::BIGINT FROM answers"
    ).fetchall()
    return {"asked": asked, "answered": answered, "tokens": tokens}


def rates(corpus: Corpus) -> Mapping[str, Sequence[Rate]]:
    """The share of texts that were taken, by attempt, by template and form, and by style."""
    forms = _rates(corpus, "form")
    return {
        "attempt": _rates(corpus, "attempt"),
        "kind": _rates(corpus, "kind"),
        "form": sorted(forms, key=lambda rate: list(FORMS).index(rate.name)),
        "style": _rates(corpus, "style", "WHERE kind = 'style'"),
    }


def gains(corpus: Corpus) -> Sequence[Gain]:
    """What a token gave in the first attempts alone, and in all of them."""
    rows = corpus.query(
        "SELECT attempt, sum(num_output_tokens)::BIGINT FROM answers GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    tokens = {attempt: used or 0 for attempt, used in rows}
    accepted = dict(corpus.query("SELECT attempt, count(*) FROM variants GROUP BY ALL").fetchall())
    found = [
        Gain(name=name, num_accepted=sum(accepted.get(n, 0) for n in numbers),
             num_tokens=sum(tokens[n] for n in numbers))
        for name, numbers in (
            ("first attempts", [n for n in tokens if n == 1]),
            ("rewrites", [n for n in tokens if n > 1]),
            ("all", list(tokens)),
        )
    ]  # fmt: skip
    return [gain for gain in found if gain.num_tokens]


def _rates(corpus: Corpus, by: str, where: str = "") -> list[Rate]:
    rows = corpus.query(_ASKED.format(by=by, where=where)).fetchall()
    return [
        Rate(name=str(name), num_asked=asked, num_accepted=taken) for name, asked, taken in rows
    ]
