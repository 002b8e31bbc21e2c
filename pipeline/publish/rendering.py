"""The Jinja environment of the card and the report, and how numbers read in both."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

_TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")


def environment() -> jinja2.Environment:
    """The templates beside this module; what goes into HTML is escaped, unless marked as safe."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.jinja2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "number": number,
        "percent": percent,
        "size": size,
        "duration": duration,
        "score": score,
        "figure": figure,
        "markdown": markdown,
    }
    return made


def number(value: float) -> str:
    """A count with its thousands apart: 4,035."""
    return f"{value:,.0f}"


def percent(part: float, whole: float = 1) -> str:
    """A share with one decimal: 9.1 %; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def size(size_bytes: float) -> str:
    """Bytes in the unit that keeps the number short, in powers of 1000: 450.6 kB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000 or unit == "TB":
            break
        size_bytes /= 1000
    return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"


def duration(seconds: float) -> str:
    """A time with two units at most: 0.4 s, 59 s, 2 min 3 s, 1 h 12 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def score(value: float) -> str:
    """A score or a limit with three significant digits: 0.183, 32, 1,024."""
    return f"{value:.3g}" if abs(value) < 1000 else number(value)


def figure(value: float | None) -> str:
    """A measured figure with two decimals: 0.42; a dash where it could not be measured."""
    return "-" if value is None else f"{value:.2f}"


def markdown(text: str) -> str:
    """Text from outside as plain words in one line or table cell of Markdown."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split())).replace("\\<", "&lt;")
