"""A multilayer perceptron: hidden blocks, a feature layer, the head."""

from __future__ import annotations

from math import prod

from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.experiments.models.build import MODELS


class MultilayerPerceptron(nn.Module):
    """depth × (Linear, BatchNorm if asked, ReLU), then a linear feature layer and the head.

    Without the last ReLU features can take any sign, as in the unconstrained-features model. Without a feature layer
    the head stands on the last block.
    """

    def __init__(self, inputs: int, classes: int, head_bias: bool, width: int, depth: int, features: int | None,
                 batch_norm: bool, rectify: bool):
        super().__init__()
        blocks: list[nn.Module] = [nn.Flatten()]
        for level in range(depth):
            blocks.append(nn.Linear(width if level else inputs, width))
            blocks.extend([nn.BatchNorm1d(width), nn.ReLU()] if batch_norm else [nn.ReLU()])
        if features is not None:
            blocks.append(nn.Linear(width, features))
            if rectify:
                blocks.append(nn.ReLU())
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(features or width, classes, bias=head_bias)

    def forward(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n k"]:
        """Logits of a batch."""
        return self.head(self.body(inputs))


@MODELS.register("mlp")
def mlp(input_shape: tuple[int, ...], classes: int, head_bias: bool = False, *, width: int = 256,
        depth: int = 2, features: int | None = 128, batch_norm: bool = False, rectify: bool = False) -> nn.Module:
    """Multilayer perceptron on inputs of any shape; `rectify` adds a ReLU after the feature layer.

    `features` null leaves that layer out: `depth` 6, `width` 2048, `batch_norm` is the network of papers on MNIST.
    """
    return MultilayerPerceptron(prod(input_shape), classes, head_bias, width, depth, features, batch_norm,
                                rectify)
