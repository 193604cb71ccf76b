"""Augmentation of images during training, off by default: theory has fixed samples."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Callable[[Tensor], Tensor]


def augmentation(name: str) -> Augmentation | None:
    """The function that the setting `augment` names; None for none."""
    return {"none": None, "standard": crop_and_flip}[name]


def crop_and_flip(images: Float[Tensor, "n c h w"], generator: torch.Generator | None = None,
                  ) -> Float[Tensor, "n c h w"]:
    """A random crop of each image, padded by an eighth of its side, and a flip of every other on average.

    With images of side 32 it is the usual one of CIFAR (he2016, §4.2): 4 zeros on each side, which normalised images
    have for their mean. All draws are made on the CPU, so that they are the same on any device.

    Parameters
    ----------
    images : (n, c, h, w) tensor
    generator : torch.Generator, optional
        Of the CPU; torch's own, which a session seeds for every epoch, when left out.

    Returns
    -------
    (n, c, h, w) tensor

    References
    ----------
    he2016, §4.2.
    """
    n, _, height, width = images.shape
    up, left = height // 8, width // 8
    rows = torch.randint(2 * up + 1, (n, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(2 * left + 1, (n, 1), generator=generator) + torch.arange(width)
    flipped = torch.randint(2, (n, 1), generator=generator).bool()
    columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    padded = F.pad(images, (left, left, up, up))
    each = torch.arange(n, device=images.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
