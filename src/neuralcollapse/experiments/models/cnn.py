"""A small convolutional network for small images."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.models.build import MODELS, image_shape


class SmallConvolutional(nn.Module):
    """Two blocks of 3×3 convolution, BatchNorm, ReLU, 2×2 pooling, then a linear feature layer and head."""

    def __init__(self, shape: tuple[int, int, int], classes: int, head_bias: bool, width: int, features: int,
                 rectify: bool):
        super().__init__()
        channels, height, side = shape
        blocks: list[nn.Module] = []
        for inputs, outputs in ((channels, width), (width, 2 * width)):
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
                       nn.ReLU(), nn.MaxPool2d(2)]
        blocks += [nn.Flatten(), nn.Linear(2 * width * (height // 4) * (side // 4), features)]
        if rectify:
            blocks.append(nn.ReLU())
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(features, classes, bias=head_bias)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of a batch."""
        return self.head(self.body(images))


@MODELS.register("cnn", source="lecun1998")
def cnn(input_shape: tuple[int, ...], classes: int, head_bias: bool = False, *, width: int = 32,
        features: int = 128, rectify: bool = False) -> nn.Module:
    """Small convolutional network for images of side ≥ 4; `rectify` adds a ReLU after the feature layer."""
    shape = image_shape("cnn", input_shape)
    if min(shape[1:]) < 4:
        raise InvalidInput(f"model 'cnn' needs images of side 4 or more, got {shape[1]}×{shape[2]}")
    return SmallConvolutional(shape, classes, head_bias, width, features, rectify)
