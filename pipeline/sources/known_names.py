"""What a column or a JSON field is by its name, where a recipe says nothing.

Every source asks here, so that a table, a folder's metadata, the JSON beside a picture and a tar's
agree. Names count in any case and with `-`, `_` or a space alike. What no list knows is nothing:
an id, a hash or a rating never becomes a caption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CAPTIONS = (
    "caption", "captions", "text", "texts", "txt", "description", "prompt", "sentence", "sentences",
    "alt", "alt_text", "alttext", "title", "conversations", "messages", "tags",
)  # fmt: skip
"""Texts about a picture, the likeliest first. `tags` are what booru downloaders and kohya's tools
train on; `conversations` and `messages` hold the assistant's turns (LLaVA, ShareGPT, OpenAI)."""
LICENCES = ("licence", "license", "license_name", "license_url", "licence_url", "rights")
ORIGINS = ("url", "image_url", "source_url", "original_url", "origin", "webpage_url", "page_url")
ATTRIBUTIONS = (
    "attribution", "author", "artist", "photographer", "creator", "credit", "credits", "owner",
)  # fmt: skip
IMAGES = ("file_name", "image", "image_path", "filename", "image_file_name", "path", "img")
"""What names the picture of a row of metadata; besides these, any `*_file_name` does, as in
`datasets`' ImageFolder."""

# ISO 639-1, as the name of a caption's language; without `id`, which is an identifier far more often.
LANGUAGES = frozenset(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da "
    "de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz "
    "ia ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo "
    "lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl "
    "ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk "
    "tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu".split()  # noqa: SIM905
)


def normal(name: str) -> str:
    """The form in which names are compared."""
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def first_of(row: Mapping[str, object], names: Iterable[str]) -> str | None:
    """The row's own name for the first of `names` that it has with a value; None without one."""
    there = {normal(name): name for name, value in reversed(row.items()) if value not in (None, "")}
    return next((there[name] for name in names if name in there), None)


def caption_columns(names: Iterable[str]) -> list[str]:
    """Those of a row's columns that are captions, the likeliest first.

    Where a known name is there, those are all; else columns that are named by a language are.
    """
    names = list(names)
    known = [(CAPTIONS.index(normal(name)), name) for name in names if normal(name) in CAPTIONS]
    if known:
        return [name for _, name in sorted(known, key=lambda each: each[0])]
    return [name for name in names if normal(name).partition("_")[0] in LANGUAGES]
