"""What a recipe may say about the scorers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.settings import ExistingFile, Settings, existing_place

_FOLDER = "local-dir:"


class ClipSettings(Settings):
    """The small CLIP that is trained on the corpus itself, fold by fold."""

    kind: Literal["trained"] = "trained"
    """Trained on the corpus, beside the kind of published models."""
    folds: int = Field(default=2, ge=2)
    """Each pair is scored by the model that was trained without its fold."""
    image_size: int = Field(default=64, ge=32, multiple_of=32)
    """Side of the picture that the model sees, in pixels."""
    vision_width: int = Field(default=16, ge=1)
    """Channels of the image tower's first stage; each of its four stages has twice as many."""
    vision_layers: int = Field(default=1, ge=1)
    """Blocks in each stage of the image tower, a ResNet."""
    width: int = 128
    """Width of the text tower and of the embedding."""
    text_layers: int = 1
    """Layers of the text tower."""
    context_length: int = 24
    """Tokens that the model sees: of a longer caption the first in training, and sentence by
    sentence all of them where it is scored."""
    steps: int = Field(default=80, ge=1)
    """Training steps of each fold."""
    rounds: int = Field(default=2, ge=1)
    """Parts of the training; after each but the last the pairs that fit worst are left out."""
    drop_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of the pairs that the rounds after the first are trained without."""
    batch_size: int = 128
    """Pairs in a step: each is told from all others of its batch."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule (AdamW)."""
    weight_decay: float = 0.1
    """AdamW's weight decay; open_clip's default is 0.2 for far larger corpora."""
    max_shift: int = Field(default=2, ge=0)
    """Pixels that a step moves each picture at most."""
    replaced_words: float = Field(default=0.2, ge=0, lt=1)
    """Share of a caption's tokens that a step puts random ones for."""
    seed: int = 0
    """Seed of the weights and the order."""


class OpenClipSettings(Settings):
    """A CLIP that somebody has published, in the format of open_clip."""

    kind: Literal["open_clip"]
    """Of any of open_clip's networks."""
    model: str = Field(min_length=1)
    """A name that open_clip has (`ViT-B-32`), `hf-hub:OWNER/NAME`, or a folder with
    `open_clip_config.json` and weights as open_clip's `local-dir:` has it. It is copied into the
    corpus once: later changes at that place do not move a score."""
    pretrained: Annotated[str, AfterValidator(existing_place)] | None = None
    """For a name: open_clip's tag of the weights (`laion2b_s34b_b79k`), or their file
    (safetensors, or another that holds tensors alone)."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of the model's arithmetic. The last two are for GPUs: they are slower on most CPUs, and move
    scores by some thousandths."""

    @field_validator("model")
    @classmethod
    def _is_known_place(cls, model: str, info: ValidationInfo) -> str:
        place = existing_place(model.removeprefix(_FOLDER), info)
        return _FOLDER + place if Path(place).is_absolute() or model.startswith(_FOLDER) else model

    @model_validator(mode="after")
    def _has_weights_once(self) -> Self:
        if (":" in self.model) is (self.pretrained is not None):
            message = (
                "pretrained says which weights a name of open_clip's gets: a tag, or a file that "
                "is there; hf-hub:OWNER/NAME and a folder have their own"
            )
            raise ValueError(message)
        return self


CLIP_KINDS: dict[str, type[Settings]] = {
    "trained_clip": ClipSettings,
    "open_clip": OpenClipSettings,
}
"""The members of the union below, by the names that pydantic's errors have for them."""


def _member(value: Any) -> str | None:  # noqa: ANN401 - unchecked input
    kind = (
        value.get("kind", "trained")
        if isinstance(value, dict)
        else getattr(value, "kind", "trained")
    )
    return {"trained": "trained_clip", "open_clip": "open_clip"}.get(str(kind))


AnyClipSettings = Annotated[
    Annotated[ClipSettings, Tag("trained_clip")] | Annotated[OpenClipSettings, Tag("open_clip")],
    Discriminator(
        _member,
        custom_error_type="clip_kind",
        custom_error_message="it is trained (on the corpus) or open_clip (a published model)",
    ),
]
"""`kind` says whose CLIP it is; without one it is trained on the corpus."""


HEADS = ("aesthetic", "nsfw")
"""The columns of the pictures table that heads can fill."""


def _is_column(name: str) -> str:
    if name not in HEADS:
        message = f"there is no head {name!r}; allowed are {', '.join(HEADS)}"
        raise ValueError(message)
    return name


Heads = dict[Annotated[str, AfterValidator(_is_column)], ExistingFile]
"""Files of heads (`filters/heads.py`) by the column that they fill."""


class MeasureSettings(Settings):
    """Everything that decides the columns of the pictures table, beside the model's weights."""

    clip: AnyClipSettings
    """The model behind `image_feature`."""
    heads: Heads = Field(default={}, exclude=True)
    """The networks on it behind `aesthetic` and `nsfw`. Their content, not their path, is part of
    the fingerprint."""


class ScoreSettings(Settings):
    """Everything that decides the columns of the scores table."""

    clip: AnyClipSettings = ClipSettings()
    """The model behind `clip_score`."""
    heads: Heads = Field(default={}, exclude=True)
    """Files of small networks on a published model's image features (`filters/heads.py`), which
    give the scores `aesthetic` and `nsfw`. A new one measures the pictures again."""
    min_caption_characters: int = 3
    """A shorter caption fails `caption_quality`."""
    max_caption_words: int = 400
    """A longer caption fails `caption_quality`."""
    max_repeated_share: float = 0.5
    """Largest share of a caption that one repeated word may take (from the fourth word on)."""

    @field_validator("heads")
    @classmethod
    def _features_are_of_one_model(cls, heads: Heads, info: ValidationInfo) -> Heads:
        clip = info.data.get("clip")
        if heads and clip and clip.kind == "trained":
            message = (
                "heads need the features of one published model: a CLIP that is trained on the "
                "corpus has other ones in each fold (score.clip.kind: open_clip)"
            )
            raise ValueError(message)
        return heads


class RightsSettings(Settings):
    """What may not be used, whatever its scores; decided anew without scoring anything again."""

    licences: list[str] | None = Field(default=None, min_length=1)
    """The licences that a record may have, as the sources name them, in upper or lower case; null
    allows all. A source that names none says `unknown`."""
    opt_outs: Literal["reject", "keep"] = "keep"
    """What to do with records that carry a signal against data mining. There are none unless
    `ingest.opt_outs` is `keep`, too; that one rejects them before they are stored."""
    blocked_domains: ExistingFile | None = Field(default=None, exclude=True)
    """File of domains, one a line: a record is refused whose origin is a URL of one, or of one
    below it. The content of the lists, not their path, is part of the fingerprint."""
    blocked_images: ExistingFile | None = Field(default=None, exclude=True)
    """File of SHA-256 hashes: of an image's bytes (`image_id`) or of its pixels (`pixel_hash`)."""
    blocked_texts: ExistingFile | None = Field(default=None, exclude=True)
    """File of words and phrases that no text may have, or `/patterns/` (regular expressions)."""
