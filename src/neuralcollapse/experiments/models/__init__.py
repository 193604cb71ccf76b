"""Networks that end in an `nn.Linear` called `head`; a new one is one file here and one line below."""

from neuralcollapse.experiments.models import cnn, libraries, mlp, resnet, transformer, vgg
from neuralcollapse.experiments.models.build import MODELS, build_model

__all__ = ["MODELS", "build_model", "cnn", "libraries", "mlp", "resnet", "transformer", "vgg"]
