"""What a recipe may say about duplicates."""

from pipeline.settings import Settings


class DuplicateSettings(Settings):
    """What counts as a copy."""

    bytes: bool = True
    """Pictures with the same bytes are copies."""
    texts: bool = True
    """Records without a picture are copies when their texts are equal."""
