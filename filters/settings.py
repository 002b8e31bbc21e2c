"""What a recipe may say about the scorers."""

from pydantic import Field

from pipeline.settings import Settings


class ClipSettings(Settings):
    """The small CLIP that is trained on the corpus itself, fold by fold."""

    folds: int = Field(default=2, ge=2)
    """Each pair is scored by the model that was trained without its fold."""
    image_size: int = 64
    """Side of the picture that the model sees, in pixels."""
    patch_size: int = 16
    """Side of the vision transformer's patches, in pixels."""
    width: int = 128
    """Width of both towers and of the embedding."""
    vision_layers: int = 4
    """Layers of the image tower."""
    text_layers: int = 2
    """Layers of the text tower."""
    context_length: int = 24
    """Tokens of a caption that the model sees; the rest is cut."""
    steps: int = 100
    """Training steps of each fold."""
    batch_size: int = 64
    """Pairs in a step: each is told from all others of its batch."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule (AdamW)."""
    weight_decay: float = 0.1
    """AdamW's weight decay; open_clip's default is 0.2 for far larger corpora."""
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
