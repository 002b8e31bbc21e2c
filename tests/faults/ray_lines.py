"""What a process that uses Ray prints, for the tests."""

GREETING = "Set ray log level from environment variable RAY_BACKEND_LOG_LEVEL"
"""Ray 2.60 writes it when it starts, and nothing turns it off."""


def without_ray_greeting(text: str) -> list[str]:
    """The lines of what was printed, but for that one."""
    return [line for line in text.splitlines() if GREETING not in line]
