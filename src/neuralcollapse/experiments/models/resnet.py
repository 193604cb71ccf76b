"""ResNet-18 as used on CIFAR: a 3×3 stem without pooling, 512 rectified features, mean pooling."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.experiments.models.build import MODELS, image_shape


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut (he2016, Fig. 2), a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.activation = nn.ReLU()

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Feature maps of a batch."""
        return self.activation(self.body(images) + self.shortcut(images))


class ResNet18(nn.Module):
    """Four stages of two basic blocks with `width`, 2, 4 and 8 times as many channels."""

    def __init__(self, channels: int, classes: int, head_bias: bool, width: int,
                 features: int | None):
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False),
                                   nn.BatchNorm2d(width), nn.ReLU()]
        before = width
        for stage in range(4):
            after = width * 2**stage
            blocks += [BasicBlock(before, after, 1 if stage == 0 else 2), BasicBlock(after, after, 1)]
            before = after
        self.body = nn.Sequential(*blocks)
        self.features = nn.Identity() if features is None else nn.Linear(before, features)
        self.head = nn.Linear(features or before, classes, bias=head_bias)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of a batch."""
        # A mean over pixels: the backward pass of torch's adaptive pooling is not deterministic on CUDA.
        return self.head(self.features(self.body(images).mean(dim=(2, 3))))


@MODELS.register("resnet18", source="he2016")
def resnet18(input_shape: tuple[int, ...], classes: int, head_bias: bool = False, *,
             width: int = 64, features: int | None = None) -> nn.Module:
    """CIFAR-style ResNet-18 for images of any size, 8 × `width` rectified features.

    `features` adds a linear layer to as many, free in sign.
    """
    return ResNet18(image_shape("resnet18", input_shape)[0], classes, head_bias, width, features)
