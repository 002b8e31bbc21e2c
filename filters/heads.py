"""Heads: small networks on a published CLIP's image features, for an aesthetic or an NSFW score.

A head is a safetensors file with the weights of linear layers as `torch.nn.Linear` has them, in the
order of the numbers in their names (`layers.0.weight`, `layers.0.bias`, `layers.2.weight`, …). A
head of one layer may call them `weight` and `bias`. Its metadata say what the tensors do not:
`activation`, between layers, is `relu` or `none`, and has to be there where there are several;
`output` is `none` (the default) or `sigmoid`.

Legend: B pictures, D width of the features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.engine.fingerprint import hash_file
from pipeline.errors import UserError

_HINT = (
    "A head is a safetensors file with a linear layer from the width of the CLIP model's features "
    "to 1, or several with `activation` (relu or none) in the metadata; see filters/heads.py."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One head.

    Attributes:
        path: its file.
        layers: weight (out, in) and bias (out,) of each, float32.
        activation: between layers, `relu` or `none`.
        output: after the last, `sigmoid` or `none`.
    """

    path: Path
    layers: Sequence[tuple[np.ndarray, np.ndarray]]
    activation: str
    output: str

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The scores of image features, from (B, D) float32 unit vectors to (B,) float32.

        Raises:
            UserError: when the head is for features of another width.
        """
        width = self.layers[0][0].shape[1]
        if width != features.shape[1]:
            message = (
                f"the head {self.path} is for features of width {width}, and the model of "
                f"score.clip has features of width {features.shape[1]}"
            )
            raise UserError(message, "Take a head that was trained on this model's features.")
        values = features
        for number, (weight, bias) in enumerate(self.layers):
            if number and self.activation == "relu":
                values = np.maximum(values, 0)
            values = values @ weight.T + bias
        scores = values[:, 0]
        return 1 / (1 + np.exp(-scores)) if self.output == "sigmoid" else scores


def heads_fingerprint(heads: Mapping[str, Path]) -> dict[str, str]:
    """The hash of each head's file.

    Raises:
        UserError: when one is not there, or is no head.
    """
    return {name: hash_file(read_head(path).path) for name, path in heads.items()}


def read_head(path: Path) -> Head:
    """The head in a file.

    Raises:
        UserError: when there is none.
    """
    try:
        with safe_open(path, "np") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            about = content.metadata() or {}
    except (OSError, SafetensorError, TypeError) as error:
        raise UserError(f"the head {path} cannot be read: {error}", _HINT) from error
    head = Head(
        path=path,
        layers=_layers(path, tensors),
        activation=about.get("activation", "none"),
        output=about.get("output", "none"),
    )
    if len(head.layers) > 1 and "activation" not in about:
        raise UserError(f"the head {path} does not say its activation", _HINT)
    if head.activation not in {"relu", "none"} or head.output not in {"sigmoid", "none"}:
        found = f"activation {head.activation!r} and output {head.output!r}"
        raise UserError(f"the head {path} has {found}", _HINT)
    return head


def _layers(path: Path, tensors: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    names = [name.removesuffix("weight") for name in tensors if name.endswith("weight")]
    names.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    try:
        layers = [
            (tensors[f"{name}weight"].astype(np.float32), tensors[f"{name}bias"].astype(np.float32))
            for name in names
        ]
        widths = [layers[0][0].shape[1], *(len(bias) for _, bias in layers)]
        shapes = [weight.shape for weight, _ in layers]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"the head {path} has no layer, or one without a part", _HINT) from error
    expected = list(zip(widths[1:], widths, strict=False))
    if 2 * len(layers) != len(tensors) or shapes != expected or widths[-1] != 1:
        found = ", ".join(f"{name} {each.shape}" for name, each in sorted(tensors.items()))
        raise UserError(f"the head {path} has tensors that do not fit together: {found}", _HINT)
    return layers
