"""Puts the page together, section by section, in the order of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from pipeline import words
from pipeline.calibration import describe, read_calibration
from pipeline.engine.corpus import Corpus
from pipeline.engine.events import EVENTS_FILE
from pipeline.engine.schemas import CAPTION_KINDS
from pipeline.engine.storage import commit_text, read_json
from pipeline.ledger.unread import describe_unread, read_unread
from pipeline.ledger.warnings import warnings
from pipeline.publish import facts
from pipeline.publish.diversity import WRITTEN, TextDiversity, text_diversity
from pipeline.publish.rendering import duration, environment, number, percent
from pipeline.publish.report import (
    calibration,
    figures,
    pictures,
    queries,
    synthesis,
    training,
)
from pipeline.synthesis.diversity import NEAR, Embed

REPORT_FILE = "report.html"

_STREAMS = {name: f"stream {name}" for name in facts.STREAMS}
_LINES = ("other", "kept-1", "kept-2", "kept-3", "kept-4", "open")
_MAX_RIGHTS = 50
_NUM_EXAMPLES = 20
_NUM_PAIRS = 12
"""On each side of the cut: two rows of six."""


def write_report(corpus: Corpus, run: Path | None, *, embed: Embed | None) -> Path:
    """Write the report of a corpus, and of a model that was trained on it, and return its path.

    A section for which there is nothing yet says so.

    Args:
        corpus: in any state, from its first stage on.
        run: the folder of a trained model, or None.
        embed: an encoder for the spread of the LLM's texts; None leaves it out.

    Raises:
        UserError: when the run holds no training.
    """
    page = environment().get_template("report.html.jinja2").render(**_context(corpus, run, embed))
    commit_text(corpus.root / REPORT_FILE, page)
    return corpus.root / REPORT_FILE


def _context(corpus: Corpus, run: Path | None, embed: Embed | None) -> dict[str, Any]:
    trained = training.describe(run) if run else None  # first: a wrong run is an error
    diversity = text_diversity(corpus, WRITTEN, embed=embed)
    records, texts = facts.record_outcome(corpus), facts.text_outcome(corpus)
    streams = facts.stream_facts(corpus)
    times = queries.stage_times(corpus.root / EVENTS_FILE)
    calibrated, vq = read_calibration(corpus), facts.vq_metrics(corpus)
    rights, num_more_rights = facts.rights_facts(corpus, limit=_MAX_RIGHTS)
    rules = facts.rule_facts(corpus)
    limits = {rule.says.what: rule.says.least for rule in rules if rule.says.least is not None}
    return {
        "recipe": corpus.recipe,
        "num_sources": len(corpus.recipe["sources"]),
        "headlines": _headlines(records, texts, streams, calibrated, vq, trained, times),
        "records": records,
        "records_river": _river(records, "records", _STREAMS),
        "rights": rights,
        "num_more_rights": num_more_rights,
        "texts": texts,
        "texts_river": _river(texts, "texts", words.KINDS),
        "synthesis": synthesis.counts(corpus),
        "rates": synthesis.rates(corpus) if texts.given else {},
        "gains": synthesis.gains(corpus),
        "writers": facts.writer_facts(corpus),
        "examples": queries.examples(corpus, _NUM_EXAMPLES) if texts.given else [],
        "diversity": diversity,
        "growth_chart": _growth_chart(diversity),
        "near": NEAR,
        "rules": rules,
        "calibration": calibrated,
        "describe_calibration": describe,
        "warnings": warnings(corpus),
        "unread": describe_unread(read_unread(corpus.root)),
        "clip": facts.clip_metrics(corpus),
        "calibration_chart": calibration.chart(calibrated, limits.get("clip_score")),
        "distributions": _distributions(corpus, limits),
        "faults": queries.caption_faults(corpus),
        "gallery": _gallery(corpus, limits.get("clip_score")),
        "vq": vq,
        "vq_charts": _vq_charts(vq),
        "reconstructions": _model_picture(corpus, "vq", "reconstructions.png"),
        "text_tokenizer": facts.text_metrics(corpus),
        "streams": streams,
        "shards": facts.shard_list(corpus),
        "trained": trained,
        "sheet": pictures.sheet(run / "samples" / "sheet.png") if run else None,
        "read_captions": _read_captions(run),
        "times": times,
        "models": facts.model_facts(corpus),
        "recipe_text": _recipe_text(corpus),
        "meaning": words.meaning,
        "kinds": words.KINDS,
        "scores": words.SCORES,
        "thumbnail": pictures.thumbnail,
    }


def _headlines(
    records: facts.Outcome,
    texts: facts.Outcome,
    streams: Sequence[facts.StreamFacts],
    calibrated: Mapping[str, Any] | None,
    vq: Mapping[str, Any] | None,
    trained: training.Training | None,
    times: Sequence[queries.StageTime],
) -> list[tuple[str, str]]:
    """The few figures that tell the most: value and what it is."""
    kept = f"of {number(records.given)} records kept"
    found = [(percent(records.num_kept, records.given), kept)]
    if streams:
        samples = sum(row.num_samples for row in streams)
        found.append(
            (number(samples), f"samples in {sum(row.num_shards for row in streams)} shards")
        )
    if texts.given:
        found.append((number(texts.num_kept), f"of {number(texts.given)} LLM texts kept"))
    if calibrated:
        area = f"{calibrated['auc']['value']:.3f}"
        found.append((area, "AUC of the CLIP score, true against shuffled pairs"))
    if vq and vq["psnr"] is not None:
        found.append((f"{vq['psnr']:.1f} dB", "PSNR of the image tokenizer"))
    if trained and trained.held_out_loss is not None:
        found.append((f"{trained.held_out_loss:.2f}", "held-out loss, nats per token"))
    if times:
        found.append((duration(sum(time.seconds for time in times)), "work on the corpus"))
    return found


def _river(outcome: facts.Outcome, unit: str, names: Mapping[str, str]) -> str | None:
    """The flow of an outcome, with what stays under its name; None where nothing came in."""
    if not outcome.given:
        return None
    branches = [
        figures.Branch(
            label=loss.reason, note=f"left out at {loss.stage}", count=loss.count, colour="lost"
        )
        for loss in outcome.losses
    ]
    branches += [
        figures.Branch(label=names[name], note="kept", count=count, colour=f"kept-{place}")
        for place, (name, count) in enumerate(outcome.kept.items(), start=1)
    ]
    branches.append(
        figures.Branch(label="not decided yet", note="open", count=outcome.num_open, colour="open")
    )
    sentence = ", ".join(f"{branch.label} {branch.count:,}" for branch in branches if branch.count)
    return figures.river(
        branches,
        given=outcome.given,
        unit=unit,
        description=f"Of {outcome.given:,} {unit}: {sentence}.",
    )


def _growth_chart(found: TextDiversity | None) -> str | None:
    """New pairs of words as texts are read; None where no text has a pair."""
    if found is None or not any(len(points) > 1 for points in found.growth.values()):
        return None
    lines = [
        figures.Line(label=words.KINDS[kind], points=points, colour=colour)
        for (kind, points), colour in zip(found.growth.items(), cycle(_LINES), strict=False)
    ]
    ends = ", ".join(f"{line.label} {line.points[-1][1]:,}" for line in lines)
    return figures.line_chart(
        lines,
        x_label="pairs of words read",
        y_label="different pairs",
        description=f"Different pairs of words as more are read, at the end: {ends}",
    )


def _distributions(
    corpus: Corpus, limits: Mapping[str, float | None]
) -> list[tuple[queries.Distribution, str | None]]:
    """The histograms of the scores; None in place of a chart where all values are equal."""
    if not corpus.files("scores"):
        return []
    found = []
    for score, kinds in (
        ("clip_score", CAPTION_KINDS),
        ("caption_quality", queries.KINDS),
        ("entropy", ("original",)),
        ("short_side", ("original",)),
    ):
        values = queries.distribution(corpus, score, by_kind=kinds)
        if values is None:
            continue
        what = "pictures" if kinds == ("original",) else "texts"
        chart = None
        if len(values.edges) > 1:
            chart = figures.histogram(
                values.edges,
                [
                    ("pictures" if what == "pictures" else words.KINDS[kind], counts, f"kept-{n}")
                    for n, (kind, counts) in enumerate(values.counts.items(), start=1)
                ],
                x_label=words.SCORES[score],
                y_label=what,
                marks=_marks(limits.get(score)),
                description=f"Distribution of {words.SCORES[score]} over {values.total:,} {what}",
            )
        found.append((values, chart))
    return found


def _marks(cut: float | None) -> list[figures.Mark]:
    return [] if cut is None else [figures.Mark(label="cut", value=cut)]


def _gallery(corpus: Corpus, cut: float | None) -> dict[str, Any] | None:
    """The pairs around the cut on the CLIP score; None where there is no cut."""
    if cut is None:
        return None
    above, below = queries.pairs_around(corpus, cut, _NUM_PAIRS)
    return {"cut": cut, "above": above, "below": below}


def _vq_charts(metrics: Mapping[str, Any] | None) -> list[str]:
    """The curves of the image tokenizer's training, where there are points to draw."""
    if not metrics or len(metrics["curve"]) < 2:
        return []
    curve = metrics["curve"]
    return [
        figures.line_chart(
            [
                figures.Line(
                    label=label, points=[(p["step"], p[key]) for p in curve], colour="kept-1"
                )
            ],
            x_label="training step",
            y_label=unit,
            description=f"{label} over the training steps, at last {curve[-1][key]:.2f}",
        )
        for key, label, unit in (
            ("psnr", "PSNR of held-out pictures", "dB"),
            ("ssim", "structural similarity of held-out pictures", ""),
            ("perplexity", "perplexity of the codebook", "codes"),
            ("dead_codes", "codes that no step has used since the last point", "codes"),
        )
        if key in curve[0]
    ]


def _model_picture(corpus: Corpus, model: str, name: str) -> str | None:
    folder = corpus.models.get(model)
    return pictures.sheet(folder / name) if folder else None


def _read_captions(run: Path | None) -> dict[str, str]:
    """What the model read in pictures, by picture; empty where nobody has asked."""
    path = run / "samples" / "captions.json" if run else None
    captions: dict[str, str] = read_json(path) if path and path.exists() else {}
    return captions


def _recipe_text(corpus: Corpus) -> str:
    path = corpus.root / "recipe.yaml"
    if path.exists():
        return path.read_text(encoding="utf-8")
    return yaml.safe_dump(dict(corpus.recipe), sort_keys=False, allow_unicode=True)
