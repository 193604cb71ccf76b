"""Augmentation: every crop and flip is one of the possible ones, drawn alike, and repeats with its generator."""

import numpy as np
import pytest
import torch

from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data.augment import augmentation, crop_and_flip
from neuralcollapse.experiments.train import train


def one_by_one(image, up, left, flip):
    """A crop by slicing a padded image."""
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (height // 8,) * 2, (width // 8,) * 2))
    crop = padded[:, up : up + height, left : left + width]
    return crop[:, :, ::-1] if flip else crop


def test_every_result_is_a_crop_or_its_mirror_and_all_occur():
    image = np.random.default_rng(0).normal(size=(2, 8, 16)).astype(np.float32)
    possible = {one_by_one(image, up, left, flip).tobytes(): (up, left, flip)
                for up in range(3) for left in range(5) for flip in (False, True)}
    images = torch.from_numpy(image).expand(3000, -1, -1, -1)
    results = crop_and_flip(images, torch.Generator().manual_seed(0))
    drawn = np.array([possible[result.numpy().tobytes()] for result in results])
    times = np.unique(drawn, axis=0, return_counts=True)[1]
    assert times.size == len(possible) == 30
    # 3,000 draws over 30: 100 ± 9.8 each, and five deviations are room enough.
    assert np.abs(times - 100).max() < 50


def test_images_of_side_32_are_padded_by_4():
    ones = crop_and_flip(torch.ones(200, 1, 32, 32), torch.Generator().manual_seed(0))
    gone = (ones == 0).any(3).sum(2).max().item(), (ones[:, :, 16] == 0).sum(2).max().item()
    assert gone[1] == 4


def test_the_generator_or_torchs_own_decides():
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    one, two = (crop_and_flip(images, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        assert torch.equal(crop_and_flip(images), one)


@pytest.mark.parametrize(("name", "function"), [("none", None), ("standard", crop_and_flip)])
def test_by_name(name, function):
    assert augmentation(name) is function


def test_training_augments_repeatably_and_measures_the_images_themselves(tmp_path):
    """A step of size nearly 0 moves nothing, so what differs is what the losses of the epochs were taken on."""
    config = TrainConfig(epochs=2, n_max=20, measure="every 1", threads=1, augment="standard", learning_rate=1e-12,
                         model_options={"width": 8})
    losses = {}
    for name, settings in (("one", config), ("two", config), ("none", config.replace(augment="none"))):
        losses[name] = []
        run = train(settings, tmp_path / name, on_epoch=lambda report, told=losses[name]: told.append(report.loss))
        losses[name].append(run.history[-1]["train"]["loss"])
    assert losses["one"] == losses["two"]
    assert len(set(losses["one"])) == 3  # other crops in each epoch
    assert losses["none"] == pytest.approx([losses["none"][0]] * 3, rel=1e-6)
    assert losses["one"][2] == pytest.approx(losses["none"][2], rel=1e-6)
