"""What a column or a JSON field is by its name, where a recipe says nothing.

Every source asks here, so that a table, a folder's metadata, the JSON next to a picture and a tar's
agree. Names count in any case and with `-`, `_` or a space alike. What no list knows is nothing:
an id, a hash or a rating never becomes a caption. `docs/sources.md` shows these lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import TypedDict, TypeVar

from pipeline.sources.files import plain

CAPTIONS = (
    "caption", "captions", "text", "texts", "txt", "description", "prompt", "sentence", "sentences",
    "alt", "alt_text", "alttext", "title", "image_caption", "image_description", "long_caption",
    "short_caption", "original_caption", "re_caption", "conversations", "conversation", "messages",
    "tags",
)  # fmt: skip
"""Texts about a picture, the likeliest first; each with a language or a number before or behind it,
too (`caption_de`, `en_text`, `caption_1`). `tags` are what booru downloaders and kohya's tools
train on; `conversations` and `messages` hold the assistant's turns (LLaVA, ShareGPT, OpenAI)."""
ASSISTANTS = frozenset(
    {"assistant", "gpt", "chatgpt", "bard", "bing", "bot", "chatbot", "model", "ai", "llm"}
)
"""Who speaks about the picture in a chat; the others ask."""
LICENCES = ("licence", "license", "license_name", "license_url", "licence_url", "rights")
ORIGINS = ("url", "image_url", "source_url", "original_url", "origin", "webpage_url", "page_url")
ATTRIBUTIONS = (
    "attribution", "author", "author_name", "artist", "artist_name", "photographer",
    "photographer_name", "creator", "credit", "credits", "owner",
)  # fmt: skip
_PROVENANCE = frozenset((*LICENCES, *ORIGINS, *ATTRIBUTIONS))
IMAGES = (
    "file_name", "image", "image_path", "filename", "image_file_name", "path", "img", "images",
    "picture", "photo", "jpg", "jpeg", "png", "webp", "image_name", "image_file", "image_filename",
    "image_filepath", "image_bytes", "image_base64", "imagepath", "img_path", "img_name",
    "img_file", "file_path", "filepath",
)  # fmt: skip
"""What names or holds the picture of a row; besides these, any `*_file_name` does, as in
`datasets`' ImageFolder."""
_INSIDE = ("raw", "value", "content", "assistant", "gpt")
"""What holds the text of an object inside a cell: Flickr30k's sentences have `raw`, the turns of
The Cauldron `user` and `assistant`."""

# ISO 639-1; without `id` and `no`, which are an identifier and a number far more often.
_ISO_639_1 = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv "
    "cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr "
    "ht hu hy hz ia ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky "
    "la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn nr nv ny oc "
    "oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st "
    "su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za "
    "zh zu"
)
LANGUAGES = frozenset(_ISO_639_1.split())

_LANGUAGE = (  # de, pt_br, zh_hans; but not what begins a question or a phrase: is_ok, to_do
    rf"(?!(?:am|an|as|be|is|my|or|so|to)_)(?:{'|'.join(sorted(LANGUAGES))})"
    r"(?:_(?:[a-z]{2}|arab|cyrl|hans|hant|latn))?"
)
_CAPTION = re.compile(
    rf"(?:{_LANGUAGE}_)?({'|'.join(sorted(CAPTIONS, key=len, reverse=True))})"
    rf"(?:_{_LANGUAGE}|_?\d+)?"
)


Found = TypeVar("Found")


class Provenance(TypedDict):
    """What a record says of itself besides its content."""

    licence: str
    attribution: str
    origin: str


@lru_cache(maxsize=1000)
def normal(name: str) -> str:
    """The form in which names are compared."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())  # altText
    return name.casefold().replace("-", "_").replace(" ", "_")


def _remembering(find: Callable[[tuple[str, ...]], Found]) -> Callable[[Iterable[str]], Found]:
    """The same for any names: most rows of a file have those of the row before."""
    remembered = lru_cache(maxsize=256)(find)
    return wraps(find)(lambda names: remembered(tuple(names)))


@_remembering
def caption_columns(names: tuple[str, ...]) -> Sequence[str]:
    """Those of a row's columns that are captions, the likeliest first.

    Where a known name is there, those are all; else columns that are named by a language are.
    """
    found = [(_CAPTION.fullmatch(normal(name)), name) for name in names]
    known = [(CAPTIONS.index(match[1]), name) for match, name in found if match]
    if known:
        return [name for _, name in sorted(known, key=lambda each: each[0])]
    return [name for name in names if re.fullmatch(_LANGUAGE, normal(name))]


def texts_inside(names: Iterable[str]) -> list[str]:
    """The one of the keys of an object inside a cell that holds its text; none where none does."""
    return [name for name in names if normal(name) in _INSIDE][:1]


@_remembering
def image_column(names: tuple[str, ...]) -> str | None:
    """The one of a row's columns that names or holds its picture; None without one."""
    there = {normal(name): name for name in reversed(names)}
    known = (there[name] for name in IMAGES if name in there)
    return next(known, next((there[n] for n in there if n.endswith("_file_name")), None))


@_remembering
def provenance_columns(names: tuple[str, ...]) -> Sequence[str]:
    """Those of a row's columns that say its licence, whom to name, or where it is from."""
    return [name for name in names if normal(name) in _PROVENANCE]


def provenance_of(
    row: Mapping[str, object], *, licence: str, attribution: str, origin: str
) -> Provenance:
    """What a row says by known names, and the given texts where it says nothing."""
    there = {normal(n): n for n in reversed(provenance_columns(row)) if not _is_empty(row[n])}

    def first_of(names: Iterable[str], default: str) -> str:
        return text_of(row, next((there[name] for name in names if name in there), None), default)

    return Provenance(
        licence=first_of(LICENCES, licence),
        attribution=first_of(ATTRIBUTIONS, attribution),
        origin=first_of(ORIGINS, origin),
    )


def text_of(row: Mapping[str, object], name: str | None, default: str) -> str:
    """A cell besides the content (a licence, several authors) as one text; empty, the default."""
    value = row.get(name) if name is not None else None
    if _is_empty(value):
        return default
    values = value if isinstance(value, list) else [value]
    return ", ".join(plain(str(each)).strip() for each in values) or default


def _is_empty(value: object) -> bool:
    return value in (None, "", []) or value != value  # noqa: PLR0124 - NaN is pandas' null
