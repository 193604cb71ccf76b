"""Networks of timm and of transformers by name, with random weights and a head of their own: nothing is downloaded."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Shaped
import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput, did_you_mean, shown
from neuralcollapse.experiments.models.build import MODELS, image_shape, require, token_length
from neuralcollapse.measure.wrapped import evaluating


class Headed(nn.Module):
    """A body that gives features, and an `nn.Linear` on them.

    Parameters
    ----------
    body : torch.nn.Module
        From a batch to features.
    example : (1, …) tensor
        An input: its features tell how many there are.
    classes : int
    head_bias : bool
    """

    def __init__(self, body: nn.Module, example: Shaped[Tensor, "1 ..."], classes: int, head_bias: bool):
        super().__init__()
        self.body = body
        with evaluating(body):
            features = body(example).shape[-1]
        self.head = nn.Linear(features, classes, bias=head_bias)

    def forward(self, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Logits of a batch."""
        return self.head(self.body(inputs))


class Pooled(nn.Module):
    """The mean of a transformers model's last hidden state over positions or pixels; each position's with `each`."""

    def __init__(self, model: nn.Module, each: bool):
        super().__init__()
        self.model, self.each = model, each

    def forward(self, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n ... d"]:
        """Features of a batch."""
        state = self.model(inputs).last_hidden_state
        if state.ndim == 4:  # a convolutional network's maps, channels first
            return state.mean(dim=(2, 3))
        return state if self.each or state.ndim == 2 else state.mean(dim=1)


@MODELS.register("timm", argument="NAME")
def timm(name: str, input_shape: tuple[int, ...], classes: int, head_bias: bool = False, **options: Any) -> nn.Module:
    """A network of timm for images, such as timm:resnet26, its pooled features under a linear head."""
    channels, height, width = image_shape(f"timm:{name}", input_shape)
    library = require("timm", f"timm:{name}")
    if name not in library.list_models():
        raise InvalidInput(f"timm has no model '{name}': {shown(did_you_mean(name, library.list_models()), 100)}")
    body = library.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
    return Headed(body, torch.zeros(1, channels, height, width), classes, head_bias)


@MODELS.register("transformers", argument="NAME", source="wolf2020")
def transformers(name: str, input_shape: tuple[int, ...], classes: int, head_bias: bool = False, *,
                 tokens: int | None = None, next_token: bool = False, **options: Any) -> nn.Module:
    """A network of transformers by its type, such as transformers:bert or transformers:vit, options to its config."""
    label = f"transformers:{name}"
    library = require("transformers", label)
    known = library.models.auto.configuration_auto.CONFIG_MAPPING
    if name not in known:
        raise InvalidInput(f"transformers has no model type '{name}': {shown(did_you_mean(name, known.keys()), 100)}")
    if tokens is None:
        channels, height, width = image_shape(label, input_shape)
        sizes: dict[str, Any] = {"num_channels": channels, "image_size": height if height == width else (height, width)}
        example = torch.zeros(1, channels, height, width)
    else:
        length, vocabulary = token_length(label, input_shape, tokens)
        # No id is special here; and some models count positions from 2.
        special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
        sizes = {"vocab_size": vocabulary, "max_position_embeddings": length + 2, **special}
        example = torch.zeros(1, length, dtype=torch.long)
    usual = library.AutoConfig.for_model(name)
    for option in options:
        if not hasattr(usual, option):
            raise InvalidInput(f"unknown option '{option}' of model '{label}': "
                               + shown(did_you_mean(option, usual.to_dict()), 100))
    config = library.AutoConfig.for_model(name, **{**sizes, **options})
    if next_token:
        config.is_decoder = True  # in encoders such as BERT this turns the causal mask on
    model = library.AutoModel.from_config(config)
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, nn.Module) and any(p.requires_grad for p in pooler.parameters()):
        model.pooler = None  # its output is not used: its parameters would get no gradient
    return Headed(Pooled(model, next_token), example, classes, head_bias)
