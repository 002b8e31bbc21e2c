"""Ray as this process uses it: a cluster that it joins, or one that it starts on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

from pipeline.errors import UserError

_MIN_LOGICAL_CPUS = 8
"""Ray Data's helper stages around the LLM starve on two CPUs (the job waits for ever); with eight
logical ones on two cores, ingest and scoring run beside them, and the operating system shares the
real ones."""

_MAX_TMPDIR_BYTES = 36
"""Ray 2.60 adds `/ray/session_` with the time and a process id, and `/sockets/plasma_store`."""


def connect_to_ray() -> bool:
    """Join the cluster of `RAY_ADDRESS`, or start Ray on this machine.

    Returns:
        Whether that was done now; False where this process was connected already.
    """
    # Read when Ray is imported. What a worker raises comes back to us; Ray prints it as well, with
    # its own hundred lines, and on stdout.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    import ray
    import ray.data

    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    # After the first error that comes back, those of other parts would be printed at the end.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Ray's C++ side writes warnings about its own actors to stderr, between our lines. That it has
    # heard this it says in one line, which nothing turns off.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if "RAY_ADDRESS" not in os.environ:
        # Ray's workers inherit it; told task by task, no process that is idle could be taken over.
        os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
        options |= {
            "num_cpus": max(_MIN_LOGICAL_CPUS, os.cpu_count() or 1),
            "include_dashboard": False,
            "_temp_dir": _session_folder(),
        }
        if options["_temp_dir"]:
            os.environ.setdefault("VLLM_RPC_BASE_PATH", "/tmp")  # noqa: S108 - sockets, too
    stop = signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    try:
        ray.init(**options)
        if is_main:
            signal.signal(signal.SIGTERM, stop)
    except BaseException as error:
        if is_main:
            signal.signal(signal.SIGTERM, stop)
            if isinstance(error, SystemExit):  # Ray's handler has heard what is meant for ours
                signal.raise_signal(signal.SIGTERM)
        raise
    for name in ("ray.data", "ray.llm", "ray._private.worker"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _keep_off_the_console(logging.getLogger("ray.data"))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The default of 1,800 s ends a run that waits half an hour for a GPU or a model's download.
    context.execution_no_progress_timeout_s = -1
    # Wrapped in one of Ray's, an error of ours would lose its words on the way to this process.
    context.raise_original_map_exception = True
    return True


def _keep_off_the_console(logger: logging.Logger) -> None:
    """Leave a logger of Ray's no handler but that of its file in the session's folder.

    What ends a stage it prints twice, with the frames of all its own code, and then raises it.
    """
    for handler in list(logger.handlers):
        if isinstance(handler, logging.StreamHandler):
            logger.removeHandler(handler)


def _session_folder() -> str | None:
    """Where Ray keeps its sockets, if not where it would by itself.

    The path of a socket may have 107 bytes, and Ray's own names in `TMPDIR` take 68 of them.

    Raises:
        UserError: when there is no folder with so short a name.
    """
    own = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or ""
    if len(os.fsencode(own)) <= _MAX_TMPDIR_BYTES and own.isascii():
        return None
    if os.access("/tmp", os.W_OK):  # noqa: S108 - Ray makes folders of its own there
        return "/tmp/ray"  # noqa: S108
    raise UserError(
        f"TMPDIR={own}: the paths of Ray's sockets would be too long there, and nobody may write "
        "to /tmp",
        f"Set RAY_TMPDIR to a folder whose name has up to {_MAX_TMPDIR_BYTES} ASCII characters.",
    )
