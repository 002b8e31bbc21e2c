"""How far images are apart in the features of a network that was trained to recognise things.

Legend: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - what torch raises where it refuses a file

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import vgg16

from pipeline.errors import UserError

_COMPARED = (3, 8, 15, 22, 29)
"""The last ReLU of each of VGG16's five resolutions."""


class PerceptualDistance(nn.Module):
    """VGG16's features, of unit length over the channels, compared place by place.

    Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric,
    arXiv:1801.03924, equation 1, with all weights 1 (the cosine distance, as the paper says): the
    weights that it fits to people's judgements are not needed.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, network: Path) -> None:
        """Load what `network` holds of torchvision's VGG16, frozen.

        Args:
            network: a `.safetensors`, or a `.pth` that holds tensors alone; a classifier in it is
                left out.

        Raises:
            UserError: when it is not there or is another network.
        """
        super().__init__()
        with torch.device("meta"):  # It draws no random number and fills no memory.
            self._layers = vgg16().features[: _COMPARED[-1] + 1]
        prefix = "features."
        try:
            if network.suffix == ".safetensors":
                tensors = load_file(network)
            else:
                tensors = torch.load(network, map_location="cpu", weights_only=True)
            held = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            self._layers.load_state_dict(held, assign=True)
        except (OSError, RuntimeError, UnpicklingError) as error:
            raise UserError(
                f"{network} holds no VGG16: {str(error).partition(chr(10))[0]}",
                "image_tokenizer.perceptual.network is the state dict of torchvision's vgg16.",
            ) from error
        self.requires_grad_(requires_grad=False)
        for name, values in (("_mean", (0.485, 0.456, 0.406)), ("_std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1))  # ImageNet's

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The mean distance of images (B, 3, H, W) in [-1, 1], a scalar."""
        x, y = ((values.add(1).div(2) - self._mean) / self._std for values in (images, others))
        distance = images.new_zeros(())
        for number, layer in enumerate(self._layers):
            x, y = layer(x), layer(y)  # (B, C, H, W)
            if number in _COMPARED:
                difference = F.normalize(x, dim=1) - F.normalize(y, dim=1)
                distance = distance + difference.square().sum(dim=1).mean()
        return distance
