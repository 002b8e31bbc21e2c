"""Runs commands of the command line one after another, as `make demo` and `make reference` do."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from jobs import cli


def run_commands(commands: Sequence[Sequence[str]], console: Console) -> int:
    """Run commands in their order, each shown first; the code of the first that fails, or 0."""
    for command in commands:
        console.print(f"\n[bold]$ anymix {' '.join(command)}[/bold]", soft_wrap=True)
        if code := cli.command(list(command)):
            return code
    return 0
