"""What a recipe may say about the scorers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings import RecipePath, Settings


class ClipSettings(Settings):
    """The small CLIP that is trained on the corpus itself, fold by fold."""

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
    """Tokens of a caption that the model sees; the rest is cut."""
    steps: int = 80
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


class MeasureSettings(Settings):
    """Everything that decides the columns of the pictures table, beside the model's weights."""

    clip: ClipSettings
    """The model behind `image_feature`."""


class ScoreSettings(Settings):
    """Everything that decides the columns of the scores table."""

    clip: ClipSettings = ClipSettings()
    """The model behind `clip_score`."""
    min_caption_characters: int = 3
    """A shorter caption fails `caption_quality`."""
    max_caption_words: int = 400
    """A longer caption fails `caption_quality`."""
    max_repeated_share: float = 0.5
    """Largest share of a caption that one repeated word may take (from the fourth word on)."""


class RightsSettings(Settings):
    """What may not be used, whatever its scores; decided anew without scoring anything again."""

    licences: list[str] | None = Field(default=None, min_length=1)
    """The licences that a record may have, as the sources name them, in upper or lower case; null
    allows all. A source that names none says `unknown`."""
    opt_outs: Literal["reject", "keep"] = "keep"
    """What to do with records that carry a signal against data mining. There are none unless
    `ingest.opt_outs` is `keep`, too; that one rejects them before they are stored."""
    blocked_domains: RecipePath | None = Field(default=None, exclude=True)
    """File of domains, one a line: a record is refused whose origin is a URL of one, or of one
    below it. The content of the lists, not their path, is part of the fingerprint."""
    blocked_images: RecipePath | None = Field(default=None, exclude=True)
    """File of SHA-256 hashes: of an image's bytes (`image_id`) or of its pixels (`pixel_hash`)."""
    blocked_texts: RecipePath | None = Field(default=None, exclude=True)
    """File of words and phrases that no text may have, or `/patterns/` (regular expressions)."""
