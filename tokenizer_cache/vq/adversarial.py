"""A discriminator that tells images from reconstructions, and what the tokenizer learns from it.

Source: Esser et al., Taming Transformers for High-Resolution Image Synthesis (VQGAN),
arXiv:2012.09841, section 3.1, with the constants of its authors' code.

Legend: B batch, H W image height and width, h w grid of judgements.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer_cache.settings import AdversarialSettings

_MAX_WEIGHT = 1e4


class Discriminator(nn.Sequential):
    """Judges patches: images (B, 3, H, W) in [-1, 1] as (B, 1, h, w), positive where they are real.

    Source: Isola et al., Image-to-Image Translation with Conditional Adversarial Networks
    (PatchGAN), arXiv:1611.07004, section 3.2.2 and appendix 6.1.2.
    """

    def __init__(self, settings: AdversarialSettings) -> None:
        """Initial weights come from torch's generator."""
        widths = [settings.width << min(layer, 3) for layer in range(settings.layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1)]
        for number, (before, width) in enumerate(pairwise(widths), start=1):
            stride = 2 if number < settings.layers else 1
            layers += [
                nn.LeakyReLU(0.2),
                nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=False),
                # It only ever judges batches as they come, so there is nothing to keep of them.
                nn.BatchNorm2d(width, track_running_stats=False),
            ]
        super().__init__(
            *layers, nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1)
        )
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)


def discriminator_loss(real: Tensor, reconstructed: Tensor) -> Tensor:
    """The hinge loss of judgements of images and of reconstructions; 1 when it cannot tell them.

    Source: Lim and Ye, Geometric GAN, arXiv:1705.02894, section 3, halved as in VQGAN's code, which
    takes it in place of the paper's equation 5.
    """
    return (F.relu(1 - real).mean() + F.relu(1 + reconstructed).mean()) / 2


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """Weight that brings a loss's gradient to the size of the reconstruction loss's (equation 7).

    Args:
        reconstruction: the scalar loss of reconstructions.
        adversarial: the scalar loss that is weighed.
        last: weights of the decoder's last layer, where the gradients are taken.
    """
    wanted, found = (
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
        for loss in (reconstruction, adversarial)
    )
    return (wanted / (found + 1e-6)).clamp(max=_MAX_WEIGHT)
