"""From a record to a prompt: pure functions.

Each kind of text has a template of its own. Its examples come first and are the same for every
record and every attempt, so that the engine's prefix cache holds them.

A caption is data. It reaches the prompt only as a JSON string: it can neither end its message nor
start another one, and chat-template tokens are taken out of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.engine.fingerprint import fingerprint
from pipeline.errors import UserError
from pipeline.synthesis.forms import KINDS, forms_of
from pipeline.synthesis.settings import SynthesisSettings

VERSION = 4
"""Raised when the code changes a prompt or what is made of an answer."""

STYLES = "styles.yaml"
JUDGE = "judge"
"""The template of the LLM as a judge, beside those of the kinds."""

PACKAGED = Path(__file__).parent / "templates"

MAX_CAPTION = 400
"""Characters of a record's caption that the LLM gets to see."""

_HEADER = re.compile(r"^\[(system|user|assistant)\]\n", re.MULTILINE)
# Whatever stands in angle brackets, in ASCII's or in those that NFKC makes of others, since every
# family of models has tokens of its own there; HTML goes with them. Then Falcon's and Mistral's.
_CHAT_TOKEN = re.compile(
    "[<\uff1c\ufe64][^<>\uff1c\uff1e\ufe64\ufe65\\s][^<>\uff1c\uff1e\ufe64\ufe65]{0,60}[>\uff1e\ufe65]"
    r"|>>[A-Z]+<<|[\[\uff3b]/?[gs]?[A-Z][A-Z0-9_]+[\]\uff3d]"
)
# Controls, separators, surrogates and private characters; half an emoji would stop Arrow.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\uf8ff\ufff9-\uffff\U000f0000-\U0010ffff]+"
)
# What no reader sees (Unicode's Default_Ignorable_Code_Point): it breaks words apart or spells
# hidden text. A joiner stays where Persian, Hindi and emoji have one.
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]|(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]"
)

Message = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The templates of the prompts and the taxonomy of styles.

    Attributes:
        templates: for each kind, Jinja source: messages under `[system]`, `[user]` and
            `[assistant]` lines.
        styles: for each style, how a text about a picture in it begins.
    """

    templates: Mapping[str, str]
    styles: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Hash of the templates, the taxonomy and the version of the code that uses them."""
        templates = dict(self.templates)
        return fingerprint(templates=templates, styles=dict(self.styles), version=VERSION)

    def fingerprint_of(self, kind: str) -> str:
        """The same for what decides the prompts of one kind, or of the judge."""
        styles = dict(self.styles) if kind == "style" else {}
        return fingerprint(template=self.templates[kind], styles=styles, version=VERSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A text that is to be written again, as the prompt words it."""

    form: str
    text: str
    why: str


def template_name(kind: str) -> str:
    """The file of a kind's template."""
    return f"{kind}.jinja2"


def load_prompts(settings: SynthesisSettings) -> Prompts:
    """The prompts that the settings name; what their folder lacks is the packaged one.

    Raises:
        UserError: when a file is missing or is not what it should be.
    """
    folder = settings.templates or PACKAGED
    paths: dict[str, Path] = {kind: folder / template_name(kind) for kind in KINDS}
    if not any(path.exists() for path in paths.values()):
        names = ", ".join(path.name for path in paths.values())
        raise UserError(
            f"synthesis.templates: {folder} has none of {names}", "Put at least one of them there."
        )
    templates = {
        name: _read(folder / template_name(name))
        if (folder / template_name(name)).exists()
        else _read(PACKAGED / template_name(name))
        for name in (*KINDS, JUDGE)
    }
    styles = _read_styles(settings.styles or PACKAGED / STYLES)
    prompts = Prompts(templates=templates, styles=styles)
    for kind, path in paths.items():
        _check(prompts, kind, path)
    return prompts


def _check(prompts: Prompts, kind: str, path: Path) -> None:
    style = next(iter(prompts.styles))
    probe = Fault(form=forms_of(kind)[0], text="probe", why="probe")
    try:
        for faults in ((), (probe,)):
            messages = build_messages(prompts, kind, "probe", style=style, faults=faults)
    except jinja2.TemplateError as error:
        raise UserError(
            f"{path}: {error}",
            "The template may use: caption, style, opening, next; faults, wrong and because.",
        ) from error
    if not messages or messages[-1]["role"] != "user":
        raise UserError(
            f"{path}: the last message is not the user's.",
            "Put each message under a line of its own: [system], [user] or [assistant].",
        )


def prompt_fingerprint(settings: SynthesisSettings) -> str:
    """A hash of the content of the templates and of the taxonomy."""
    return load_prompts(settings).fingerprint


def build_messages(
    prompts: Prompts,
    kind: str,
    caption: str,
    *,
    style: str,
    next_caption: str = "",
    faults: Sequence[Fault] = (),
) -> list[Message]:
    """The chat that asks for the texts of one kind, or for those that were faulty again.

    The template is cut into messages before the caption is put in.

    Args:
        prompts: the templates.
        kind: what is asked for.
        caption: what the record states.
        style: the visual style that the record has drawn.
        next_caption: what the record states to which an interleaved text leads.
        faults: the texts that are to be written again.
    """
    known = {
        "caption": clean(caption),
        "style": style,
        "opening": prompts.styles[style],
        "next": clean(next_caption),
        "faults": bool(faults),
        "wrong": {fault.form: clean(fault.text) for fault in faults},
        "because": {fault.form: clean(fault.why) for fault in faults},
    }
    return [
        {"role": role, "content": template.render(known)}
        for role, template in _compile(prompts.templates[kind])
    ]


def clean(text: str) -> str:
    """Text without what cannot be seen, chat-template tokens and doubled space, cut to a limit."""
    text = text[: 4 * MAX_CAPTION]  # what a hostile caption costs is bounded before any regex runs
    while (stripped := _strip(text)) != text:  # removing one thing may complete another
        text = stripped
    return text[:MAX_CAPTION].rstrip()


def compact_json(value: object) -> str:
    """JSON without spaces: every token of a prompt and of an answer costs time."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shorten(text: str, length: int = 200) -> str:
    """Text of at most `length` characters, for a reject's detail."""
    return text if len(text) <= length else text[: length - 1] + "…"


@lru_cache(maxsize=16)
def _compile(template: str) -> tuple[tuple[str, jinja2.Template], ...]:
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.filters["json"] = compact_json
    _, *pieces = _HEADER.split(template)
    return tuple(
        (role, environment.from_string(source.strip()))
        for role, source in zip(pieces[::2], pieces[1::2], strict=True)
    )


def _strip(text: str) -> str:
    visible = _INVISIBLE.sub("", _UNPRINTABLE.sub(" ", text))
    return " ".join(_CHAT_TOKEN.sub(" ", visible).split())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}", "See synthesis in the recipe."
        ) from error


def _read_styles(path: Path) -> dict[str, str]:
    import yaml

    allowed = "The taxonomy is a YAML map from a style to how a text about it begins."
    try:
        styles = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}", allowed) from error
    if not isinstance(styles, dict) or not styles:
        raise UserError(f"{path} holds no map of styles.", allowed)
    for name, opening in styles.items():
        if not (isinstance(name, str) and isinstance(opening, str) and opening.strip()):
            raise UserError(f"{path}: {name!r} does not map to a text.", allowed)
    return {name: opening.strip() for name, opening in styles.items()}
