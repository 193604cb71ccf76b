"""Perturbed inputs: attacks that stay in their ball and find its worst corner, noise, blur, and training on attacks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralcollapse import InvalidInput, TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.session import Session
from neuralcollapse.experiments.studies.adversarial import PixelRange, adversarial_epoch, blurred, pgd, with_noise

CONFIG = TrainConfig(dataset="digits", ratio=4, n_max=20, epochs=3, batch_size=None, model_options={"width": 16},
                     head_weight_decay=1e-2, feature_penalty=1e-4, threads=1, device="cpu")


@pytest.fixture(scope="module")
def data():
    return load_data(CONFIG)


@pytest.fixture(scope="module")
def pixels(data):
    return PixelRange.of(data, 16.0)


@pytest.fixture
def model():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
    return nn.Sequential(body, nn.Linear(4 * 36, 10))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def attacked(model, data, pixels, **given):
    return pgd(model, data.inputs, data.labels, pixels, **({"eps": 0.1, "steps": 5, "generator": seeded()} | given))


def test_the_range_is_where_normalisation_has_put_black_and_white(data, pixels):
    assert data.inputs.min() == pixels.black.item()
    assert data.inputs.max() == pixels.white.item()
    # 1.6 of 16 raw levels, in units of the spread.
    assert pixels.scaled(0.1).item() == pytest.approx(1.6 / data.spread[0], rel=1e-6)


def test_an_attack_stays_in_its_ball_and_in_the_range(data, pixels, model):
    moved = attacked(model, data, pixels)
    assert (moved - data.inputs).abs().max() <= pixels.scaled(0.1).item() * (1 + 1e-6)
    assert (moved - data.inputs).abs().max() > pixels.scaled(0.09).item()
    assert moved.min() >= pixels.black.item()
    assert moved.max() <= pixels.white.item()


def test_an_attack_raises_the_loss_beyond_noise_and_more_in_a_larger_ball(data, pixels, model):
    model.eval()
    with torch.no_grad():
        clean, noisy, small, large = (float(F.cross_entropy(model(inputs), data.labels)) for inputs in (
            data.inputs, with_noise(data.inputs, pixels, 0.1, seeded()), attacked(model, data, pixels, eps=0.05),
            attacked(model, data, pixels)))
    assert clean < small < large
    assert noisy < small


def test_on_a_linear_model_of_two_classes_it_ends_in_the_worst_corner(data, pixels):
    torch.manual_seed(1)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    labels, (one, two) = data.labels % 2, linear[1].weight.detach()
    # The loss falls with (w_y − w_c)·x alone, so that each pixel's worst value is an end of its interval.
    away = torch.where((labels == 0)[:, None], two - one, one - two).sign().reshape(data.inputs.shape)
    corner = (data.inputs + 0.1 * (pixels.white - pixels.black) * away).clamp(pixels.black, pixels.white)
    found = pgd(linear, data.inputs, labels, pixels, eps=0.1, steps=3, generator=seeded())
    torch.testing.assert_close(found, corner, rtol=0, atol=1e-5)  # float32 rounding of values up to 2


def test_a_ball_of_radius_zero_changes_nothing(data, pixels, model):
    assert torch.equal(attacked(model, data, pixels, eps=0), data.inputs)


def test_model_and_inputs_are_left_as_they_were(data, pixels, model):
    model.train()
    model[0][1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = data.inputs.clone()
    moved = attacked(model, data, pixels)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all((parameter.grad == 1).all() for parameter in model.parameters())
    assert torch.equal(data.inputs, inputs)
    assert not moved.requires_grad


def test_the_start_is_the_generator_s(data, pixels, model):
    # Dropout is off while it is searched, so that nothing else is random.
    one, same, other = (attacked(model, data, pixels, steps=1, generator=seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("given", "message"), [
    ({"eps": -0.1}, "eps must be a finite number ≥ 0, a share of the pixel range, got -0.1"),
    ({"eps": float("nan")}, "eps must be a finite number ≥ 0, a share of the pixel range, got nan"),
    ({"steps": 0}, "steps must be a whole number ≥ 1, got 0")])
def test_attacks_that_cannot_be_are_refused(data, pixels, model, given, message):
    with pytest.raises(InvalidInput) as error:
        attacked(model, data, pixels, **given)
    assert str(error.value) == message


def test_noise_has_the_asked_deviation_and_stays_in_the_range(pixels):
    grey = ((pixels.black + pixels.white) / 2).expand(200, 1, 8, 8)
    noisy = with_noise(grey, pixels, 0.1, seeded())
    # 12,800 draws: the standard deviation of theirs is 0.6 % of it; clipping at 5 deviations touches none.
    assert noisy.std().item() == pytest.approx(pixels.scaled(0.1).item(), rel=0.03)
    assert with_noise(grey, pixels, 5.0, seeded()).max() == pixels.white.item()


def test_blur_is_the_mean_over_a_box(data):
    image = data.inputs[:1]
    wide = np.pad(image[0, 0].numpy().astype(float), 1, mode="edge")
    expected = [[wide[i:i + 3, j:j + 3].mean() for j in range(8)] for i in range(8)]
    np.testing.assert_allclose(blurred(image, 3)[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_without_perturbation_an_epoch_is_a_session_s_own(data, pixels):
    one, two = Session(CONFIG, data), Session(CONFIG, data)
    for epoch in (1, 2):
        own = one.run_epoch(epoch)
        assert adversarial_epoch(two, epoch, pixels, eps=0.0, steps=1) == pytest.approx(own, rel=1e-6)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], value, rtol=1e-5, atol=1e-7)


def test_batches_cover_every_sample_and_the_worst_case_costs_more(data, pixels):
    config = CONFIG.replace(batch_size=16, learning_rate=1e-9)  # weights stay: an epoch's loss is that of the start
    losses = [adversarial_epoch(Session(config, data), 1, pixels, eps=eps, steps=3) for eps in (0.0, 0.1)]
    whole = adversarial_epoch(Session(config.replace(batch_size=None), data), 1, pixels, eps=0.0, steps=1)
    assert losses[0] == pytest.approx(whole, rel=1e-5)
    assert losses[1] > losses[0] + 0.01
