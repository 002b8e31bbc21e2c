"""What the ledger's commands print for a person; with `--json` they print the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.calibration import describe
from pipeline.engine.corpus import Corpus
from pipeline.errors import FAILED, UserError
from pipeline.ledger.audit import Finding
from pipeline.ledger.gc import Garbage
from pipeline.ledger.losses import nothing_left
from pipeline.ledger.unread import describe_unread
from pipeline.ledger.warnings import warnings

if TYPE_CHECKING:
    from jobs.dry_run import PlannedStep

Row = dict[str, Any]

_IN_WHY = ("reason", "detail", "score", "threshold")
"""Columns of a reject that its `why` says in words."""


def print_table(names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """A table without borders, numbers to the right; nothing where there are no rows."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(names):
        is_number = all(isinstance(row[index], int) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console(highlight=False, markup=False).print(table)
    typer.echo("")


def print_outcome(corpus: Corpus, console: Console) -> None:
    """The warnings at the end of a run.

    Raises:
        UserError: when nothing came out of it.
    """
    for warning in warnings(corpus):
        console.print(f"warning: {warning}", soft_wrap=True, markup=False)
    if found := nothing_left(corpus):
        hint = "Change select (`anymix select CORPUS --what-if …` shows what it keeps) or the data."
        raise UserError(found, hint, exit_code=FAILED)


def print_status(state: Row) -> None:
    """The state of a corpus, as `pipeline.ledger.status` gives it."""
    typer.echo(
        f"{state['corpus']}: {state['num_records']} records in {state['num_parts']} parts"
        + (f", being filled by {state['running']}" if state["running"] else "")
        + "\n"
    )
    print_table(
        ("table", "parts done", "of", "rows"),
        [(name, t["parts_done"], t["parts"], t["rows"]) for name, t in state["tables"].items()],
    )
    print_table(
        ("last run", "parts done", "of", "rows", "rejects", "rows/s", "left"),
        [
            (
                stage["stage"],
                stage["parts_done"],
                stage["parts"],
                stage["rows"],
                stage["num_rejects"],
                None if stage["rows_per_s"] is None else f"{stage['rows_per_s']:,.0f}",
                None if stage["seconds_left"] is None else f"{stage['seconds_left']:,.0f} s",
            )
            for stage in state["stages"]
        ],
    )
    for event in state["errors"]:
        place = " ".join(str(event[name]) for name in ("stage", "part") if event.get(name))
        typer.echo(f"error  {event['time']} {place}: {event.get('error')}")
    print_table(
        ("rejected by", "reason", "records", "texts"),
        [tuple(row.values()) for row in state["rejects"]],
    )
    print_table(
        ("stream", "split", "samples", "records"), [tuple(row.values()) for row in state["samples"]]
    )
    if state["shards"]:
        typer.echo(f"shards in {state['shards']}\n")
    print_table(
        ("model", "since it was fitted"), [(d["model"], d["advice"]) for d in state["drift"]]
    )
    if audited := state["audit"]:
        outcome = "; ".join(audited["faults"]) or f"{audited['checks']} checks without a fault"
        typer.echo(f"audited {audited['time'][:16]}: {outcome}")
    if state["calibration"]:
        typer.echo(describe(state["calibration"]))
    for note in describe_unread(state["unread"]):
        typer.echo(note)
    for warning in state["warnings"]:
        typer.echo(f"warning: {warning}")


def print_plan(plan: Sequence[PlannedStep]) -> None:
    """What a run would do, step by step, and why."""
    for step in plan:
        todo = f"{step.parts} of {step.of} parts" if step.kind == "stage" else f"the {step.kind}"
        typer.echo(f"{step.step:<14} {todo if step.reasons else 'nothing to do'}")
        for reason in step.reasons:
            typer.echo(f"{'':<14}   because {reason}")


def print_findings(findings: Sequence[Finding]) -> None:
    """What an audit found, and what to do about it."""
    for finding in findings:
        mark = "fault" if finding.faults else "ok"
        typer.echo(f"{mark:<6}{finding.check} ({finding.checked} checked, {finding.faults} faults)")
        for example in finding.examples:
            typer.echo(f"      {example}")
        if finding.remedy:
            typer.echo(f"      {finding.remedy}")


def print_garbage(found: Sequence[Garbage]) -> None:
    """What would be removed, and how much that is."""
    print_table(
        ("bytes", "files", "what", "where"),
        [(each.size_bytes, each.num_files, each.why, str(each.path)) for each in found],
    )
    files, size = sum(e.num_files for e in found), sum(e.size_bytes for e in found)
    typer.echo(f"{files} files, {size:,} bytes that nothing refers to")


def print_what_if(found: Row) -> None:
    """What another selection would keep and lose, as `jobs.what_if` found out."""
    for now, other in zip_longest(found["limits"], found["limits_would_be"]):
        typer.echo(f"{now or 'nothing'}" + ("" if now == other else f" -> {other or 'nothing'}"))
    typer.echo("")
    print_table(
        ("", "kept", "would be", "lost", "gained"),
        [(what, *found[what].values()) for what in ("records", "texts")]
        + [tuple(row.values()) for row in [*found["by_source"], *found["by_style"]]],
    )
    print_table(
        ("reason", "records", "would be", "texts", "would be"),
        [tuple(row.values()) for row in found["by_reason"]],
    )
    for what in ("lost", "gained"):
        for row, line in zip(found[what], _lines(found[what]), strict=True):
            typer.echo(f"{what}: record {row['record_id']}  {line}")


def print_story(story: Row) -> None:
    """What `pipeline.ledger.explain` found out about a record."""
    typer.echo(f"record {story['record_id']}\n{story['outcome']}\n")
    part = story["part"]
    typer.echo(f"part: {part['name']}, {part['num_records']} records of {part['source']}")
    # Not the lists of files and rows in it, which may be a thousand lines.
    slice_ = {k: v for k, v in part["slice"].items() if not isinstance(v, dict | list)}
    typer.echo(f"slice: {slice_}")
    for name, value in (story["record"] or {}).items():
        if value not in (None, [], story["record_id"]):
            typer.echo(f"{name}: {value}")
    for name in ("duplicate_of", "stands_for"):
        if story[name]:
            typer.echo(f"{name.replace('_', ' ')}: {', '.join(story[name])}")
    for name in (
        "variants",
        "pictures",
        "scores",
        "selection",
        "tokens",
        "samples",
        "rejects",
        "events",
    ):
        if story[name]:
            typer.echo(f"\n{name}")
            for line in _lines(story[name]):
                typer.echo(f"  {line}")


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        said = {"record_id", *(_IN_WHY if "why" in row else ())}
        known = {k: v for k, v in row.items() if v is not None and k not in said}
        yield "  ".join(f"{name}={value}" for name, value in known.items())
