"""Who is blamed for what a part's tries end with, and how often they are made."""

import errno

import pytest

from pipeline.engine import attempts as attempts_module
from pipeline.engine.attempts import MAX_TRIES, Attempts, PartFailedError, patiently, persevere
from pipeline.engine.parts import Part, SourceRecord
from pipeline.engine.stage import Work
from pipeline.ingest import IngestSettings, IngestWorker
from pipeline.sources.shapes import ShapesSource


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(attempts_module, "PAUSES_S", (0, 0, 0))


def tries(tmp_path):
    return Attempts.at(tmp_path / "part.json", "run")


def test_a_file_that_a_power_cut_left_empty_says_nothing(tmp_path):
    path = tmp_path / "part.json"
    path.write_text("")
    attempts = Attempts.at(path, "run")
    attempts.begin()
    assert len(Attempts.at(path, "run").tries) == 1


def test_a_record_that_fails_each_time_is_given_up_and_the_rest_is_done(tmp_path):
    def do(quarantined, at):
        for record in {"a", "b"} - quarantined.keys():
            at((record,))
            if record == "b":
                raise ValueError(record)
        return sorted(quarantined)

    assert persevere(tries(tmp_path), None, do) == ["b"]


def test_what_fails_with_a_record_in_quarantine_named_is_not_blamed_on_it_again(tmp_path):
    """A worker that announces a record and then fails at something else would go on for ever."""
    count = 0

    def do(_quarantined, at):
        nonlocal count
        count += 1
        at(("innocent",))
        raise ValueError

    with pytest.raises(PartFailedError, match="3 tries; the last: Traceback"):
        persevere(tries(tmp_path), None, do)
    assert count == 2 * MAX_TRIES


@pytest.mark.parametrize("num_whole", [0, 1, 2])
def test_a_source_that_raises_between_two_records_blames_none_of_them(
    tmp_path, monkeypatch, num_whole, fault
):
    """The part fails, and its message says behind which record."""
    part = Part.of("s", {}, num_records=3)

    def read(_source, _part):
        for number in range(num_whole):
            yield SourceRecord(
                key=f"k{number}", caption="a", image=None, licence="", attribution="", origin=""
            )
        message = "bad row group"
        raise ValueError(message)

    monkeypatch.setattr(ShapesSource, "read", read)
    worker = IngestWorker(IngestSettings(), {})
    extra = {
        "part": {"name": part.name, "source": "s", "slice": {}, "num_records": 3},
        "source": {"kind": "shapes", "name": "s", "num_records": 3, "size": 32},
    }
    given_up = {}

    def do(quarantined, at):
        given_up.update(quarantined)
        return worker(Work(part=part.name, extra=extra, quarantined=quarantined, at=at))

    with pytest.raises(PartFailedError, match="bad row group") as raised:
        persevere(tries(tmp_path), None, do)
    where = f"k{num_whole - 1}" if num_whole else "its start"
    assert f"while the source s was read on from {where}" in str(raised.value)
    assert not given_up
    fault(
        "a source fails between two records",
        "exit code 1: ingest could not do part PART: 3 tries; the last: with the traceback, while "
        "the source NAME was read on from KEY. All other parts are committed",
        lost="nothing: the part is missing, the audit names it, the next run does it",
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error", "/corpus/part"),
        OSError(errno.ESTALE, "Stale file handle", "/corpus/part"),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
    ids=lambda error: errno.errorcode[error.errno],
)
def test_an_error_that_passes_costs_a_try_and_blames_nobody(tmp_path, error, fault):
    errors = [error, error]
    attempts = tries(tmp_path)

    def do(_quarantined, at):
        at(("a",))
        if errors:
            raise errors.pop()
        return "done"

    assert patiently(lambda: persevere(attempts, None, do)) == "done"
    assert not attempts.quarantined
    assert len(attempts.tries) == 1
    fault(
        "a disk or a store fails for a moment (input/output error, lost connection)",
        "nothing: the part is tried again, up to three times, after pauses",
    )


def test_an_error_that_does_not_pass_ends_the_run_as_it_is(tmp_path):
    def do(_quarantined, _at):
        raise OSError(errno.EIO, "Input/output error", "/corpus/part")

    with pytest.raises(OSError, match="Input/output error"):
        patiently(lambda: persevere(tries(tmp_path), None, do))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_full_or_read_only_disk_ends_the_run_at_once(tmp_path, number):
    count = 0

    def do(_quarantined, _at):
        nonlocal count
        count += 1
        raise OSError(number, "words", "/corpus/part")

    with pytest.raises(OSError, match="words"):
        patiently(lambda: persevere(tries(tmp_path), None, do))
    assert count == 1


def test_a_library_s_own_os_error_without_a_number_is_a_fault_of_the_record(tmp_path):
    """Arrow raises a plain OSError for a page that it cannot unpack."""

    def do(quarantined, at):
        if "a" not in quarantined:
            at(("a",))
            message = "Corrupt snappy compressed data."
            raise OSError(message)
        return "done"

    attempts = tries(tmp_path)
    assert persevere(attempts, None, do) == "done"
    assert "Corrupt snappy" in attempts.quarantined["a"]
