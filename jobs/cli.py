"""The command line: `anymix`. Messages go to stderr, results to stdout.

Exit codes: 0 done, 1 the work failed or an audit found a fault, 2 the command or the recipe is
wrong, 3 stopped before the end (Ctrl-C, SIGTERM, --stop-after); the same command goes on from
there.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from jobs import stopping
from jobs.arguments import (
    ERRORS,
    AsJson,
    Changes,
    CorpusPath,
    RecipePath,
    say,
    say_json,
)
from jobs.model_commands import evaluations, sample, train
from pipeline.engine.storage import to_path
from pipeline.errors import FAILED, STOPPED, LeaseLostError, UserError
from pipeline.progress import shown_on

app = typer.Typer(
    name="anymix",
    help="From pictures and captions to a trained any-to-any model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    recipe: RecipePath,
    corpus: Annotated[
        Path | None,
        typer.Option(parser=to_path, metavar="PATH", help="Folder to fill; the recipe's name."),
    ] = None,
    changes: Changes = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after it.")] = None,
    refit: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Fit a pinned model anew.")
    ] = None,
    stop_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop cleanly after 90s, 55m or 2h.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Stop cleanly before the LLM has written more."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Find damaged files and make them again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and why; do nothing.")
    ] = False,
) -> None:
    """Fill or refresh a corpus; only what has changed is done."""
    from jobs.display import print_outcome, print_plan
    from jobs.dry_run import plan
    from jobs.progress import Reporter
    from jobs.recipe import load_recipe
    from jobs.run import fill

    spending = [] if budget is None else [f"synthesis.budget={budget}"]
    loaded = load_recipe(recipe, [*(changes or []), *spending])
    if loaded.synthesis.budget is not None and loaded.synthesis.limit == 0:
        message = "--budget (synthesis.budget) has no effect: the recipe asks no LLM"
        raise UserError(message, "Give the recipe a section synthesis, or leave it out.")
    root = corpus or Path(loaded.name)
    if dry_run:
        if repair or stop_after is not None:
            message = "--dry-run does nothing, so that --repair and --stop-after have no effect"
            raise UserError(message, "Leave them out; `anymix audit` finds damaged files.")
        print_plan(plan(loaded, root, until=until, refit=refit or []))
        return
    if stop_after is not None:
        signal.setitimer(signal.ITIMER_REAL, _seconds(stop_after))
    reporter = Reporter(ERRORS)
    filled = fill(loaded, root, until=until, refit=refit or [], repair=repair, reporter=reporter)
    print_outcome(filled, ERRORS)
    place = "" if filled.shards is None else f", its shards in {root}/shards/{filled.shards.name}"
    ERRORS.print(f"The corpus is in {root}{place}", soft_wrap=True)


@app.command()
def status(corpus: CorpusPath, as_json: AsJson = False) -> None:
    """Show parts, rates and rejects, live while a run goes on, and how far models have drifted."""
    from jobs.display import print_status
    from jobs.run import open_corpus
    from pipeline.engine.lock import holder_of
    from pipeline.ledger.status import status as state_of

    state = state_of(open_corpus(corpus)[1], holder_of(corpus))
    if as_json:
        say_json(state)
    else:
        print_status(state)


@app.command()
def audit(corpus: CorpusPath, as_json: AsJson = False) -> None:
    """Prove that every record is in the shards or in the rejects, once; exit 1 if not."""
    from jobs.display import print_findings
    from jobs.upkeep import audit as check

    findings = check(corpus)
    sound = not any(finding.faults for finding in findings)
    if as_json:
        rows = [{name: getattr(f, name) for name in f.__slots__} for f in findings]
        say_json({"sound": sound, "findings": rows})
    else:
        print_findings(findings)
        say("The corpus is sound." if sound else "The corpus is NOT sound.")
    if not sound:
        raise typer.Exit(FAILED)


@app.command()
def explain(
    corpus: CorpusPath,
    record: Annotated[
        str,
        typer.Argument(metavar="RECORD", help="Its id or key, or the start of its image's id."),
    ],
    as_json: AsJson = False,
) -> None:
    """Show everything that happened to one record, and why."""
    from jobs.display import print_story
    from jobs.run import open_corpus
    from pipeline.ledger.explain import explain as tell

    story = tell(open_corpus(corpus)[1], record)
    if as_json:
        say_json(story)
    else:
        print_story(story)


@app.command()
def select(
    corpus: CorpusPath,
    what_if: Annotated[
        list[str],
        typer.Option(metavar="KEY=VALUE", help="A line of `select`: clip_score.quantile=0.3."),
    ],
    as_json: AsJson = False,
) -> None:
    """Show what another selection would keep and lose, without doing it."""
    from jobs.display import print_what_if
    from jobs.what_if import what_if as compare

    found = compare(corpus, what_if)
    if as_json:
        say_json(found)
    else:
        print_what_if(found)


@app.command()
def forget(
    corpus: CorpusPath,
    image_id: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="All records with this image.")
    ] = None,
    record: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="The record with this id.")
    ] = None,
    source_prefix: Annotated[
        list[str] | None,
        typer.Option(metavar="P", help="All whose source/key or origin starts so."),
    ] = None,
    entries: Annotated[
        list[Path] | None,
        typer.Option("--list", metavar="FILE", help="A file with one of these a line."),
    ] = None,
) -> None:
    """Take records out of every table and shard, for good; they never come back."""
    from jobs.progress import Reporter
    from jobs.upkeep import forget as take_out
    from jobs.upkeep import read_list
    from pipeline.engine.forgotten import Entry

    wanted = [
        *(Entry(kind="image-id", value=value) for value in image_id or []),
        *(Entry(kind="record", value=value) for value in record or []),
        *(Entry(kind="source-prefix", value=value) for value in source_prefix or []),
        *(entry for path in entries or [] for entry in read_list(path)),
    ]
    done = take_out(corpus, wanted, reporter=Reporter(ERRORS))
    if not done.num_records:
        say("No record is meant by that; those to come are kept out.")
        return
    say(f"{done.num_records} records were there and are gone; they will not come back.")
    if not done.is_complete:
        say("The corpus is not filled to its end: `anymix run` completes shards and card.")
    say("Models that were fitted before may have seen them: `anymix run --refit NAME` fits anew.")
    say("report.html and the pictures beside models are removed where they may have shown them:")
    say("`anymix report` writes the one again, a refit the others.")
    say("Not reached: copies, trainings, other machines' caches, versions that a store keeps.")


@app.command()
def gc(
    corpus: CorpusPath,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Show what the corpus's recipe does not refer to any more, and remove it when told so."""
    from jobs.display import print_garbage
    from jobs.upkeep import collect_garbage
    from pipeline.ledger.gc import Garbage

    was_asked = False

    def agree(found: list[Garbage]) -> bool:
        nonlocal was_asked
        was_asked = True
        print_garbage(found)
        return yes or (sys.stdin.isatty() and typer.confirm("Remove them?"))

    removed = collect_garbage(corpus, agree)
    kept = "Nothing was removed (--yes removes)." if was_asked else "There is nothing to remove."
    say(f"{len(removed)} removed." if removed else kept)


app.command()(train)
app.add_typer(evaluations, name="eval")
app.command()(sample)


@app.command()
def card(corpus: CorpusPath) -> None:
    """Write the dataset card: README.md with Hugging Face's YAML."""
    from jobs.embedding import text_encoder
    from jobs.run import open_corpus
    from pipeline.publish.card import write_card

    opened = open_corpus(corpus)[1]
    say(str(write_card(opened, embed=text_encoder(opened))))


@app.command()
def report(
    corpus: CorpusPath,
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Folder of a trained model.")
    ] = None,
) -> None:
    """Write report.html: what happened to the records, in pictures."""
    from jobs.embedding import text_encoder
    from jobs.run import open_corpus
    from pipeline.publish.report import write_report

    opened = open_corpus(corpus)[1]
    say(str(write_report(opened, run_folder, embed=text_encoder(opened))))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what this machine can run, and what is missing."""
    from jobs.doctor import examine

    findings = examine()
    if as_json:
        say_json({"findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            say(f"{'ok' if finding.ok else 'MISSING':<8}{finding.what}: {finding.found}")
            if not finding.ok:
                say(f"        {finding.remedy}")
    if not all(finding.ok for finding in findings if finding.needed):
        raise typer.Exit(FAILED)


def main() -> None:
    """Run the command line in this process, and leave it."""
    stopping.finish(lambda: command(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run one command in a process that goes on behind it, and return its exit code."""
    with stopping.listening():
        try:
            return command(arguments)
        except KeyboardInterrupt:
            return STOPPED


def command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; the one place where errors become messages.

    Raises:
        Stopped: when a signal has ended it, whatever a library has made of that on the way.
    """
    try:
        with shown_on(ERRORS):
            app(args=list(arguments))
    except SystemExit as ended:
        if stopping.is_asked():
            raise stopping.Stopped from ended
        return int(ended.code or 0)
    except Exception as error:
        from pipeline.engine.faults import as_user_error

        if stopping.is_asked() and not isinstance(error, LeaseLostError):
            raise stopping.Stopped from error
        found = error if isinstance(error, UserError) else as_user_error(error, arguments)
        if found is None:
            raise
        _print_error(found)
        return found.exit_code
    return 0


def _print_error(error: UserError) -> None:
    ERRORS.print("[bold red]error[/bold red]", end=" ")
    ERRORS.print(error.message, markup=False, soft_wrap=True)
    if error.hint:
        ERRORS.print(error.hint, markup=False, soft_wrap=True)


def _seconds(text: str) -> float:
    """The seconds in a time such as 90s, 55m or 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None or not float(found[1]):
        raise UserError(f"--stop-after {text} is not a time", "Write 90s, 55m or 2h.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


if __name__ == "__main__":
    main()
