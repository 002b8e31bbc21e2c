"""`anymix`, from its first instant: signals are heard before anything large is imported."""

from __future__ import annotations

import sys

from jobs.stopping import finish


def main() -> None:
    """Run the command line."""
    finish(_command)


def _command() -> int:
    from pipeline.device import let_threads_sleep

    let_threads_sleep()
    from jobs.cli import command

    return command(sys.argv[1:])


if __name__ == "__main__":
    main()
