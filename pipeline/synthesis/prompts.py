"""From a record to a prompt, and from the LLM's answer to variants: pure functions.

One prompt asks for all kinds at once, a caption, the same in another style and a negative, since
the examples at its start are then read once for three texts. They come first and are the same for
every record, so that vLLM's prefix cache holds them.

A caption is data. It reaches the prompt only as a JSON string: it can neither end its message nor
start another one, and chat-template tokens are taken out of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.engine.fingerprint import fingerprint, unit_interval
from pipeline.errors import UserError
from pipeline.synthesis.settings import SynthesisSettings

VERSION = 2
"""Raised when the code below changes a prompt or what is made of an answer."""

TEMPLATE = "rewrite.jinja2"
REROLL = "reroll.jinja2"
STYLES = "styles.yaml"
PACKAGED = Path(__file__).parent / "templates"

MAX_CAPTION = 400
"""Characters of a record's caption that the LLM gets to see."""

MAX_LENGTHS = {"caption": 160, "style": 180, "negative": 80}
"""The kinds of text, and how many characters each may have. Ours: a small model that has not come
to an end by then has lost its thread."""

KINDS = tuple(MAX_LENGTHS)

_HEADER = re.compile(r"^\[(system|user|assistant)\]\n", re.MULTILINE)
_CHAT_TOKEN = re.compile(r"<\|[^|<>]{0,40}\|>|</?s>|\[/?INST\]|<</?SYS>>", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_PLAIN = re.compile(r"[^\w]+")

Message = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The template of the prompt and the taxonomy of styles.

    Attributes:
        template: Jinja source: messages under `[system]`, `[user]` and `[assistant]` lines.
        reroll: the same for a text that is to be written again, with what was wrong with it.
        styles: for each style, how a text about a picture in it begins.
    """

    template: str
    reroll: str
    styles: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Hash of the templates, the taxonomy and the version of the code that uses them."""
        templates = [self.template, self.reroll]
        return fingerprint(templates=templates, styles=dict(self.styles), version=VERSION)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why an answer, or the text of one kind in it, was not taken."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an answer gave, by kind.

    Attributes:
        texts: the texts that were taken.
        rejected: why the others were not.
        written: the others, where there is a text at all.
    """

    texts: Mapping[str, str]
    rejected: Mapping[str, Rejected]
    written: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A text that is to be written again, as the prompt words it."""

    kind: str
    text: str
    why: str


def load_prompts(settings: SynthesisSettings) -> Prompts:
    """The prompts that the settings name.

    Raises:
        UserError: when a file is missing or is not what it should be.
    """
    folder = settings.templates or PACKAGED
    prompts = Prompts(
        template=_read(folder / TEMPLATE),
        reroll=_read(folder / REROLL if (folder / REROLL).exists() else PACKAGED / REROLL),
        styles=_read_styles(settings.styles or PACKAGED / STYLES),
    )
    style = next(iter(prompts.styles))
    probe = Fault(kind="caption", text="probe", why="probe")
    _check(folder / TEMPLATE, lambda: build_messages(prompts, "probe", style))
    _check(folder / REROLL, lambda: build_messages(prompts, "probe", style, [probe]))
    return prompts


def _check(path: Path, build: Callable[[], list[Message]]) -> None:
    try:
        messages = build()
    except jinja2.TemplateError as error:
        known = "The template may use: caption, style, opening; and faults when it is a reroll."
        raise UserError(f"{path}: {error}", known) from error
    if not messages or messages[-1]["role"] != "user":
        raise UserError(
            f"{path}: the last message is not the user's.",
            "Put each message under a line of its own: [system], [user] or [assistant].",
        )


def prompt_fingerprint(settings: SynthesisSettings) -> str:
    """A hash of the content of the template and of the taxonomy."""
    return load_prompts(settings).fingerprint


def choose_style(prompts: Prompts, record_id: str, seed: int) -> str:
    """The style that a record is rewritten in: uniform over the taxonomy, always the same."""
    names = list(prompts.styles)
    return names[int(unit_interval("style", str(seed), record_id) * len(names))]


def build_messages(
    prompts: Prompts, caption: str, style: str, faults: Sequence[Fault] = ()
) -> list[Message]:
    """The chat that asks for the rewrites of one caption, or for those that were faulty again.

    The template is cut into messages before the caption is put in.
    """
    known = {
        "caption": clean(caption),
        "style": style,
        "opening": prompts.styles[style],
        "faults": [
            {"kind": fault.kind, "text": clean(fault.text), "why": clean(fault.why)}
            for fault in faults
        ],
    }
    return [
        {"role": role, "content": template.render(known)}
        for role, template in _compile(prompts.reroll if faults else prompts.template)
    ]


def json_schema(prompts: Prompts, style: str, kinds: Sequence[str] = KINDS) -> dict[str, object]:
    """The JSON schema of an answer: a sentence a kind, and up to three things for `negative`.

    The text in the style must begin as the taxonomy says. Lengths are left to the parser: a bounded
    repetition costs xgrammar 2.5 s to compile for each style, an open one 0.05 s (measured).
    """
    opening = re.sub(r"[.*+?^${}()|\[\]\\]", r"\\\g<0>", prompts.styles[style])
    patterns = {
        "caption": r'^[^"\\\n. ][^"\\\n.]+\.$',
        "style": rf'^{opening} [^"\\\n.]+\.$',
        "negative": r'^[^"\\\n, ][^"\\\n,]+(, [^"\\\n,]+){0,2}$',
    }
    return {
        "type": "object",
        "properties": {kind: {"type": "string", "pattern": patterns[kind]} for kind in kinds},
        "required": list(kinds),
        "additionalProperties": False,
    }


def parse(
    prompts: Prompts,
    text: str,
    *,
    kinds: Sequence[str] = KINDS,
    caption: str,
    style: str,
    own: Mapping[str, str] = MappingProxyType({}),
    complete: bool,
) -> Answer:
    """What the LLM's answer to one caption is worth.

    Args:
        prompts: the prompts that the answer belongs to.
        text: the answer.
        kinds: what was asked for.
        caption: the record's caption.
        style: the style that was asked for.
        own: the record's texts that have been taken before, by kind.
        complete: False when the answer ended because it had used up its tokens.
    """
    try:
        answer = json.loads(text)
    except ValueError:
        reason = "synthesis-malformed-json" if complete else "synthesis-cut-off"
        return _nothing(reason if text.strip() else "synthesis-empty", text, kinds)
    if not isinstance(answer, dict):
        return _nothing("synthesis-malformed-json", text, kinds)
    texts: dict[str, str] = {}
    rejected: dict[str, Rejected] = {}
    faulty: dict[str, str] = {}
    for kind in kinds:
        value = answer.get(kind)
        written = clean(value) if isinstance(value, str) else ""
        # What the picture must not show may stand neither in the record nor in its new caption.
        named = f"{caption} {texts.get('caption') or own.get('caption', '')}"
        kept = _unnamed(written, named) if kind == "negative" else written
        fault = _fault(kind, written, kept, caption, opening=prompts.styles[style])
        if fault is not None:
            rejected[kind] = Rejected(fault, shorten(written or text))
            faulty[kind] = written
        else:
            texts[kind] = kept
    return Answer(texts=texts, rejected=rejected, written=faulty)


def clean(text: str) -> str:
    """Text without control characters, chat-template tokens and doubled space, cut to a limit."""
    text = text[: 4 * MAX_CAPTION]  # what a hostile caption costs is bounded before any regex runs
    while (stripped := _CHAT_TOKEN.sub(" ", text)) != text:  # removing one may complete another
        text = stripped
    return " ".join(_UNPRINTABLE.sub(" ", text).split())[:MAX_CAPTION].rstrip()


def compact_json(value: object) -> str:
    """JSON without spaces: every token of a prompt and of an answer costs time."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shorten(text: str, length: int = 200) -> str:
    """Text of at most `length` characters, for a reject's detail."""
    return text if len(text) <= length else text[: length - 1] + "…"


@lru_cache(maxsize=4)
def _compile(template: str) -> tuple[tuple[str, jinja2.Template], ...]:
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.filters["json"] = compact_json
    _, *pieces = _HEADER.split(template)
    return tuple(
        (role, environment.from_string(source.strip()))
        for role, source in zip(pieces[::2], pieces[1::2], strict=True)
    )


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


def _fault(kind: str, written: str, kept: str, caption: str, *, opening: str) -> str | None:
    if not written:
        return "synthesis-empty"
    if len(written) > MAX_LENGTHS[kind]:
        return "synthesis-too-long"
    if kind == "style" and not written.startswith(opening):
        return "synthesis-wrong-style"
    if not kept or _words(kept) == _words(caption):
        return "synthesis-repeats-record"
    return None


def _unnamed(negative: str, caption: str) -> str:
    """The things of a list, each once, without those that the caption names in the same words."""
    known = set(_words(caption))
    kept: dict[tuple[str, ...], str] = {}
    for thing in negative.split(","):
        words = tuple(_words(thing))
        if words and not known.issuperset(words):
            kept.setdefault(words, thing.strip())
    return ", ".join(kept.values())


def _words(text: str) -> list[str]:
    """The words of a text in a form that compares: no articles, no case, no plural s."""
    words = _PLAIN.sub(" ", text.casefold()).split()
    return [word.removesuffix("s") for word in words if word not in {"a", "an", "the"}]


def _nothing(reason: str, text: str, kinds: Sequence[str]) -> Answer:
    fault = Rejected(reason, shorten(text))
    return Answer(texts={}, rejected=dict.fromkeys(kinds, fault), written={})
