"""A small transformer on tokens: a text's class, or the next token at every position."""

from __future__ import annotations

from jaxtyping import Float, Int
import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.models.build import MODELS, token_length


class SmallTransformer(nn.Module):
    """Token and position embeddings, pre-norm blocks of attention and a GELU layer, a norm, a linear feature layer.

    A text's feature is the mean over its positions. With `next_token` every position has its own, attention looks
    back only, and the head's rows are not those of the embedding. There is no dropout.
    """

    def __init__(self, length: int, tokens: int, classes: int, head_bias: bool, width: int, depth: int, heads: int,
                 features: int | None, next_token: bool):
        super().__init__()
        self.next_token = next_token
        self.embedding = nn.Embedding(tokens, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True,
                                       norm_first=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.features = nn.Identity() if features is None else nn.Linear(width, features)
        self.head = nn.Linear(features or width, classes, bias=head_bias)
        mask = nn.Transformer.generate_square_subsequent_mask(length) if next_token else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, texts: Int[Tensor, "n length"]) -> Float[Tensor, "n ..."]:
        """Logits of a batch: (n, k), or (n, length, k) for the next tokens."""
        stream = self.embedding(texts) + self.position
        for block in self.blocks:
            stream = block(stream, src_mask=self.mask, is_causal=self.next_token)
        stream = self.norm(stream)
        return self.head(self.features(stream if self.next_token else stream.mean(dim=1)))


@MODELS.register("transformer", source="vaswani2017")
def transformer(input_shape: tuple[int, ...], classes: int, head_bias: bool = False, *, tokens: int | None = None,
                next_token: bool = False, width: int = 64, depth: int = 2, heads: int = 4,
                features: int | None = None) -> nn.Module:
    """Small transformer on tokens: the mean over positions classifies a text, causal attention the next token.

    `features` adds a linear layer to as many before the head.
    """
    length, known = token_length("transformer", input_shape, tokens)
    if width % heads:
        raise InvalidInput(f"model 'transformer' needs a width divisible by its heads, got {width} and {heads}")
    return SmallTransformer(length, known, classes, head_bias, width, depth, heads, features, next_token)
