"""Where records come from: one file a source, one interface (`pipeline.engine.parts.Source`)."""

from typing import Annotated

from pydantic import Field

from pipeline.engine.parts import Source
from pipeline.settings import Settings
from pipeline.sources.folder import FolderSettings, FolderSource, SoundsSettings
from pipeline.sources.huggingface import HuggingFaceSettings, HuggingFaceSource
from pipeline.sources.iconify import IconifySettings, IconifySource
from pipeline.sources.interleaved import InterleavedSettings, open_interleaved
from pipeline.sources.openmoji import OpenMojiSettings, OpenMojiSource
from pipeline.sources.pydoc import PydocSettings, PydocSource
from pipeline.sources.shapes import ShapesSettings, ShapesSource
from pipeline.sources.table import TableSettings, open_table
from pipeline.sources.text import TextSourceSettings, open_text
from pipeline.sources.webdataset import WebDatasetSettings, WebDatasetSource

SourceSettings = Annotated[
    FolderSettings
    | HuggingFaceSettings
    | IconifySettings
    | InterleavedSettings
    | OpenMojiSettings
    | PydocSettings
    | ShapesSettings
    | SoundsSettings
    | TableSettings
    | TextSourceSettings
    | WebDatasetSettings,
    Field(discriminator="kind"),
]
"""What a recipe may say in `sources`; the type checker sees whether `open_source` is complete."""

SOURCE_KINDS: dict[str, type[Settings]] = {
    "folder": FolderSettings,
    "huggingface": HuggingFaceSettings,
    "iconify": IconifySettings,
    "interleaved": InterleavedSettings,
    "openmoji": OpenMojiSettings,
    "pydoc": PydocSettings,
    "shapes": ShapesSettings,
    "sounds": SoundsSettings,
    "table": TableSettings,
    "text": TextSourceSettings,
    "webdataset": WebDatasetSettings,
}
"""The settings of each `kind`, for messages about recipes."""


def open_source(settings: SourceSettings) -> Source:  # noqa: C901, PLR0911 - one return a kind
    """The source that the settings describe."""
    match settings:
        case FolderSettings():  # and SoundsSettings, which are such
            return FolderSource(settings)
        case HuggingFaceSettings():
            return HuggingFaceSource(settings)
        case IconifySettings():
            return IconifySource(settings)
        case InterleavedSettings():
            return open_interleaved(settings)
        case OpenMojiSettings():
            return OpenMojiSource(settings)
        case PydocSettings():
            return PydocSource(settings)
        case ShapesSettings():
            return ShapesSource(settings)
        case TableSettings():
            return open_table(settings)
        case TextSourceSettings():
            return open_text(settings)
        case WebDatasetSettings():
            return WebDatasetSource(settings)
