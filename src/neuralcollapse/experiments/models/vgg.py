"""VGG-13 with batch norm as used on CIFAR: ten convolutions, five poolings, 512 rectified features."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.experiments.models.build import MODELS, image_shape

# Channels of each block of two convolutions, in units of `width` (simonyan2015, Table 1, column B).
_BLOCKS = (1, 2, 4, 8, 8)


class VGG13(nn.Module):
    """Five blocks of two 3×3 convolutions, each followed by a 2×2 pooling while the side is at least 2.

    All five poolings need a side of 32; smaller images leave the last out (side 8: two, side 28: one).
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, head_bias: bool, width: int,
                 features: int | None):
        super().__init__()
        before, side = shape[0], min(shape[1:])
        blocks: list[nn.Module] = []
        for factor in _BLOCKS:
            for _ in range(2):
                blocks += [nn.Conv2d(before, factor * width, 3, padding=1, bias=False),
                           nn.BatchNorm2d(factor * width), nn.ReLU()]
                before = factor * width
            if side >= 2:
                blocks.append(nn.MaxPool2d(2))
                side //= 2
        self.body = nn.Sequential(*blocks)
        self.features = nn.Identity() if features is None else nn.Linear(before, features)
        self.head = nn.Linear(features or before, classes, bias=head_bias)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of a batch."""
        return self.head(self.features(self.body(images).mean(dim=(2, 3))))


@MODELS.register("vgg13", source="simonyan2015")
def vgg13(input_shape: tuple[int, ...], classes: int, head_bias: bool = False, *,
          width: int = 64, features: int | None = None) -> nn.Module:
    """CIFAR-style VGG-13 with batch norm for images of any size, 8 × `width` rectified features.

    `features` adds a linear layer to as many, free in sign.
    """
    return VGG13(image_shape("vgg13", input_shape), classes, head_bias, width, features)
