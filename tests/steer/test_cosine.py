"""The cosine head against a loop, and where a direction is missing."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from neuralcollapse import InvalidInput
from neuralcollapse.steer.cosine import CosineHead, directions


def test_cosine_logits_against_a_loop():
    torch.manual_seed(0)
    head = CosineHead(3, 5, scale=7.0, dtype=torch.float64)
    own = dict(head.named_parameters())["weight"].detach().numpy()
    features = torch.randn(4, 5, dtype=torch.float64)
    for i, h in enumerate(features.numpy()):
        for c, w in enumerate(own):
            expected = 7 * float(w @ h) / np.sqrt(float(w @ w) * float(h @ h))
            assert head(features)[i, c].item() == pytest.approx(expected, rel=1e-13, abs=1e-14)
    assert torch.autograd.gradcheck(head, features.requires_grad_())
    torch.testing.assert_close(head(1e3 * features), head(features), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_zero_features_have_zero_logits_and_no_gradient(dtype):
    torch.manual_seed(0)
    head = CosineHead(3, 5, dtype=dtype)
    features = torch.tensor([[0.0] * 5, [1e-30, 0, 0, 0, 0], [1.0, 2, 3, 4, 5]], dtype=dtype, requires_grad=True)
    logits = head(features)
    assert logits.dtype == dtype
    assert logits[:2].eq(0).all()
    assert logits[2].ne(0).all()
    F.cross_entropy(logits.float(), torch.tensor([0, 1, 2])).backward()
    assert features.grad[:2].eq(0).all()
    assert features.grad.isfinite().all()


def test_half_precision_directions_do_not_overflow():
    # 300² · 4 is beyond float16.
    assert torch.equal(directions(torch.full((4,), 300.0, dtype=torch.float16)), torch.full((4,), 0.5).half())


def test_the_learned_scale_of_cosines_is_in_the_checkpoint():
    head, other = CosineHead(3, 5, scale=4.0), CosineHead(3, 5, learn_scale=True)
    other.load_state_dict(head.state_dict(), strict=True)
    features = torch.randn(2, 5)
    assert torch.equal(other(features), head(features))


INVALID = [
    (lambda: CosineHead(1, 4), "k must be at least 2 classes, got 1"),
    (lambda: CosineHead(3, 0), "d must be at least 1, got 0"),
    (lambda: CosineHead(3, 4, scale=0.0), "scale must be a positive number, got 0.0"),
]


@pytest.mark.parametrize(("call", "message"), INVALID, ids=[message[:50] for _, message in INVALID])
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message
