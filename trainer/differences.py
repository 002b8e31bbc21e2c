"""Nested values by name, and how two sets of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(value: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """The leaves of nested dictionaries by their joined keys."""
    leaves: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping):
            leaves |= {
                f"{key}{separator}{rest}": leaf for rest, leaf in flat(each, separator).items()
            }
        else:
            leaves[key] = each
    return leaves


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs by name, in words, the names in order."""
    return {
        name: f"{name} was {_shown(before.get(name))} and is {_shown(now.get(name))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    }


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)
