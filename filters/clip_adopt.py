"""Takes a published open_clip model into the corpus, with its preprocessing and its tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - what torch raises where it refuses a file

import open_clip
from open_clip import CLIP, CustomTextCLIP, SimpleTokenizer
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save_file

from filters.settings import OpenClipSettings
from pipeline.device import keeping_random_state
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json
from pipeline.errors import UserError


def fit(settings: OpenClipSettings, _inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Save the model in the layout of open_clip's `local-dir:`, all of it, for use without a hub.

    Raises:
        UserError: when it is not there, is no such model, or holds more than tensors.
    """
    try:
        model, config, tokenizer = _open(settings)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UserWarning) as error:
        raise UserError(
            f"score.clip: there is no open_clip model {_name(settings)}: {error}",
            "model is one of open_clip's names with its tag or file as pretrained, "
            "hf-hub:OWNER/NAME, or a folder with open_clip_config.json and weights in safetensors.",
        ) from error
    state = {
        name: value.detach().clone().contiguous() for name, value in model.state_dict().items()
    }
    save_file(state, folder / "open_clip_model.safetensors")
    if isinstance(tokenizer, HFTokenizer):
        tokenizer.save_pretrained(folder)
    text = getattr(model, "text", None)
    if isinstance(text, HFTextEncoder):
        text.config.save_pretrained(folder)
    commit_json(
        folder / "open_clip_config.json",
        {"model_cfg": config, "preprocess_cfg": model.visual.preprocess_cfg},
    )
    yield Progress(done=1, total=1)


@keeping_random_state()
def _open(
    settings: OpenClipSettings,
) -> tuple[CLIP | CustomTextCLIP, dict[str, object], HFTokenizer | SimpleTokenizer]:
    """The model, its configuration and its tokenizer, from where they were published."""
    with warnings.catch_warnings():
        # Only a warning in open_clip, and the scores are of no use: ViT-B-32 with openai's weights.
        warnings.filterwarnings("error", message="QuickGELU mismatch")
        try:
            model = open_clip.create_model(
                settings.model, settings.pretrained, require_pretrained=True
            )
        except UnpicklingError as error:
            # torch's own message says how to load it all the same.
            message = "its file holds more than tensors, and could run code"
            raise ValueError(message) from error
    config = open_clip.get_model_config(settings.model)
    return model, config, open_clip.get_tokenizer(settings.model)


def _name(settings: OpenClipSettings) -> str:
    return settings.model + (f" with {settings.pretrained}" if settings.pretrained else "")
