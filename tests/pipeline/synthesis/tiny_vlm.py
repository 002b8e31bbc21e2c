"""A vision-language model of two layers with random weights: no hub, and loaded in a moment."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AddedToken,
    AutoTokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
)

from pipeline.synthesis.weights import SMOLLM2, resolve_model

IMAGE_TOKENS = 4 + 3
"""32 pixels in patches of 8, four to a token; and what stands around an image."""

_SIDE = {"longest_edge": 32}

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_vlm(folder: Path) -> Path:
    """An Idefics3 (as SmolVLM is one) with the embedded model's tokenizer, as a folder.

    Of vLLM's models for pictures it is among the few that its CPU environment can load, which has
    no torchvision.
    """
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(SMOLLM2))
    added = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    config = Idefics3Config(
        vision_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        text_config={
            "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 64,
            "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    images = Idefics3ImageProcessor(size=_SIDE, max_image_size=_SIDE, do_image_splitting=False)
    Idefics3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_len=4, chat_template=_CHAT_TEMPLATE
    ).save_pretrained(folder)
    return folder
