"""What a person does to a corpus beside filling it: prove it, forget records, remove leftovers."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.forgetting import begin, take_out_unfinished
from jobs.progress import Reporter
from jobs.run import fill, open_corpus
from pipeline.engine.events import EVENTS_FILE, EventLog
from pipeline.engine.forgotten import Entry
from pipeline.engine.lock import holder_of, holding
from pipeline.engine.parts import read_parts
from pipeline.errors import UserError
from pipeline.ledger.audit import Finding
from pipeline.ledger.audit import audit as check
from pipeline.ledger.gc import Garbage, find_garbage, remove_garbage
from pipeline.ledger.live import missing
from pipeline.text_files import read_text

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgot:
    """What a forget did.

    Attributes:
        num_records: how many records were there and are gone.
        is_complete: whether shards and card are up to date again; the next run to the end does that
            where the corpus was not filled.
    """

    num_records: int
    is_complete: bool


def audit(root: Path) -> list[Finding]:
    """Check a corpus, and where all is well so far its codes; the event `audited` says the outcome.

    A corpus that cannot be written, say on a read-only mount, is checked without that event.

    Raises:
        UserError: when `root` is no corpus.
    """
    from tokenizer_cache.encoding_audit import audit_codes

    _, corpus = open_corpus(root)
    findings = check(corpus)
    if not any(finding.faults for finding in findings):
        findings.append(audit_codes(corpus))
    if holder_of(corpus.root) is None:  # a run has the log in hand, and on a store all of it
        faults = [example for finding in findings for example in finding.examples]
        try:
            log = EventLog(corpus.root / EVENTS_FILE, "audit")
            log.write("audited", checks=len(findings), faults=faults)
            log.flush()
        except OSError as error:  # what was found counts all the same
            if error.errno not in _READ_ONLY:
                raise
    return findings


def forget(root: Path, entries: Sequence[Entry], *, reporter: Reporter) -> Forgot:
    """Take records out of every table and shard, for good.

    The sources are not asked for anything: the corpus keeps its parts, and only the steps that the
    missing records change are done again, none of which needs the LLM.

    Raises:
        UserError: when `root` is no corpus, another run holds it, there is nothing to forget, or an
            entry is no id of its kind.
    """
    if not entries:
        hint = "Give --image-id, --record, --source-prefix or --list."
        raise UserError("there is nothing to forget", hint)
    recipe, corpus = open_corpus(root)
    for entry in entries:
        entry.require_whole()
    root = corpus.root
    with holding(root):
        was_filled = begin(root, entries, is_filled=not missing(corpus))
        num_records = take_out_unfinished(root)
    if was_filled:
        fill(recipe, root, until=None, reporter=reporter, parts=read_parts(root))
    return Forgot(num_records=num_records, is_complete=was_filled)


def collect_garbage(root: Path, agree: Callable[[list[Garbage]], bool]) -> list[Garbage]:
    """Remove what the corpus's recipe does not refer to any more, when `agree` says so.

    The corpus is held from the first look to the last removal, the question included: what a run
    would make live in between would be removed.

    Returns:
        What was removed.

    Raises:
        UserError: when another run holds the corpus, or it is not filled to its end.
    """
    _, corpus = open_corpus(root)
    with holding(corpus.root):
        _, corpus = open_corpus(root)
        found = find_garbage(corpus)
        if not found or not agree(found):
            return []
        remove_garbage(found)
        return found


def read_list(path: Path) -> list[Entry]:
    """The entries of a file, one a line; empty lines and lines that start with # say nothing.

    Raises:
        UserError: naming the file, the line and what is allowed.
    """
    entries = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            entries.append(Entry.parse(line))
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from error
    return entries
