"""The loss where people train: a plain loop, timm's convention, Lightning, the Trainer with gradient accumulation."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from neuralcollapse.counts import ClassCounts
from neuralcollapse.steer.counting import class_counts
from neuralcollapse.steer.losses import VSLoss

COUNTS = ClassCounts([20, 6, 4, 2])
LABELS = torch.arange(4).repeat_interleave(torch.tensor([20, 6, 4, 2]))
INPUTS = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]
LOSSES = {"weighted": VSLoss.weighted(COUNTS), "vs": VSLoss.vs(COUNTS, 0.2, 1.0), "ldt": VSLoss.ldt(COUNTS),
          "focal": VSLoss.focal(COUNTS, weight=[1, 2, 3, 4])}


def by_hand(loss, logits, labels, items):
    """The sum of the losses of single samples over `items`, one at a time."""
    rows = [(z, y) for z, y in zip(logits, labels, strict=True) if y != -100]
    return sum(loss(z[None], y[None]) for z, y in rows) / items


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def step(model, criterion, sizes, targets=LABELS):
    """One step of gradient descent on micro-batches of equal size."""
    for rows in torch.arange(32).split(sizes):
        (criterion(model(INPUTS[rows]), targets[rows]) * sizes / 32).backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.5 * p.grad
    return parameters(model)


@pytest.mark.parametrize("name", LOSSES)
def test_a_plain_loop_accumulates_exactly(name):
    whole = step(network(), LOSSES[name], 32)
    for sizes in (4, 16):
        # float32 sums in another order.
        torch.testing.assert_close(step(network(), LOSSES[name], sizes), whole, rtol=0, atol=1e-6)


def test_a_plain_loop_from_a_loader_learns_the_minority():
    data = TensorDataset(INPUTS, LABELS)
    criterion = VSLoss.vs(class_counts(data), gamma=0.2, tau=1.0)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        for inputs, labels in DataLoader(data, batch_size=8, generator=torch.Generator().manual_seed(0), shuffle=True):
            optimiser.zero_grad()
            criterion(model(inputs), labels).backward()
            optimiser.step()
    assert (model(INPUTS).argmax(1)[LABELS == 3] == 3).all()


def test_as_timm_calls_it_with_labels_and_with_mixed_ones():
    model, criterion = network(), VSLoss.vs(COUNTS, 0.2, 1.0)
    output = model(INPUTS)
    assert criterion(output, LABELS).ndim == 0
    # timm's Mixup: λ·one-hot + (1 − λ)·one-hot of the batch in reverse, smoothed over the classes.
    on, off = 1 - 0.1 + 0.1 / 4, 0.1 / 4
    one_hot = torch.full((32, 4), off).scatter_(1, LABELS[:, None], on)
    mixed = 0.3 * one_hot + 0.7 * one_hot.flip(0)
    smooth = VSLoss.vs(COUNTS, 0.2, 1.0, label_smoothing=0.1)
    expected = 0.3 * smooth(output, LABELS) + 0.7 * smooth(output, LABELS.flip(0))
    torch.testing.assert_close(criterion(output, mixed), expected, rtol=1e-5, atol=0)


# -- Lightning -----------------------------------------------------------------------------------------------------


def test_in_a_lightning_module(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning")

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.model, self.criterion = network(), VSLoss.vs(COUNTS, 0.2, 1.0)

            def training_step(self, batch, index):
                inputs, labels = batch
                return self.criterion(self.model(inputs), labels)

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.5)

        after = []
        for size, parts in ((32, 1), (8, 4)):
            module = Module()
            trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                                        enable_progress_bar=False, enable_model_summary=False,
                                        accumulate_grad_batches=parts, default_root_dir=tmp_path)
            trainer.fit(module, DataLoader(TensorDataset(INPUTS, LABELS), batch_size=size))
            after.append(parameters(module.model))
            assert all(key.startswith("model.") for key in module.state_dict())
    torch.testing.assert_close(after[1], after[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(after[0], step(network(), VSLoss.vs(COUNTS, 0.2, 1.0), 32), rtol=0, atol=1e-6)


# -- Hugging Face --------------------------------------------------------------------------------------------------


@pytest.fixture
def huggingface():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("transformers")


def text(rows, length=6, seed=0):
    """Token ids of a few words; the last of each odd row are padding."""
    tokens = torch.randint(1, 12, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(tokens)
    mask[1::2, -2:] = 0
    return tokens, mask


def trained(transformers, model, data, loss, tmp_path, size, parts):
    """The parameters after one step of SGD through the Trainer."""
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=size, gradient_accumulation_steps=parts,
        learning_rate=0.5, optim="sgd", weight_decay=0.0, max_grad_norm=0.0, lr_scheduler_type="constant",
        use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="steps",
        logging_steps=1, seed=3)
    trainer = transformers.Trainer(model, arguments, train_dataset=data, compute_loss_func=loss)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return parameters(model), trainer.state.log_history[0]["loss"]


@pytest.mark.parametrize("name", ["weighted", "ldt", "focal"])
def test_the_trainer_accumulates_sequences_exactly(huggingface, tmp_path, name):
    tokens, mask = text(8)
    labels = torch.tensor([0, 0, 0, 1, 2, 3, 0, 1])
    data = [{"input_ids": t, "attention_mask": m, "labels": y} for t, m, y in zip(tokens, mask, labels, strict=True)]

    def model():
        torch.manual_seed(0)
        return huggingface.BertForSequenceClassification(huggingface.BertConfig(
            vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=4))

    loss = LOSSES[name].for_trainer()
    whole, value = trained(huggingface, model(), data, loss, tmp_path, 8, 1)
    for size, parts in ((2, 4), (4, 2)):
        accumulated, _ = trained(huggingface, model(), data, loss, tmp_path, size, parts)
        torch.testing.assert_close(accumulated, whole, rtol=0, atol=2e-6)
    before = model()
    logits = before(input_ids=tokens, attention_mask=mask).logits
    expected = by_hand(LOSSES[name], logits, labels, 8)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-3)  # the log is rounded to four digits
    expected.backward()
    by_hand_after = torch.cat([(p - 0.5 * p.grad).detach().flatten() if p.grad is not None else p.detach().flatten()
                               for p in before.parameters()])
    torch.testing.assert_close(whole, by_hand_after, rtol=0, atol=2e-6)


def test_the_trainer_accumulates_mixed_labels_exactly(huggingface, tmp_path):
    tokens, mask = text(8)
    mixed = torch.softmax(torch.randn(8, 4, generator=torch.Generator().manual_seed(2)), 1)
    data = [{"input_ids": t, "attention_mask": m, "labels": y} for t, m, y in zip(tokens, mask, mixed, strict=True)]

    def model():
        torch.manual_seed(0)
        return huggingface.BertForSequenceClassification(huggingface.BertConfig(
            vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=4))

    loss = LOSSES["vs"].for_trainer()
    whole, value = trained(huggingface, model(), data, loss, tmp_path, 8, 1)
    accumulated, _ = trained(huggingface, model(), data, loss, tmp_path, 2, 4)
    torch.testing.assert_close(accumulated, whole, rtol=0, atol=2e-6)
    expected = LOSSES["vs"](model()(input_ids=tokens, attention_mask=mask).logits, mixed)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-3)  # the log is rounded to four digits


def test_the_trainer_accumulates_tokens_exactly(huggingface, tmp_path):
    tokens, mask = text(8)
    labels = tokens.masked_fill(mask == 0, -100)  # rows of unequal numbers of labels
    data = [{"input_ids": t, "attention_mask": m, "labels": y} for t, m, y in zip(tokens, mask, labels, strict=True)]

    def model():
        torch.manual_seed(0)
        return huggingface.LlamaForCausalLM(huggingface.LlamaConfig(
            vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=8))

    criterion = VSLoss.vs(class_counts(labels[:, 1:], k=12, absent=1), 0.2, 1.0)
    loss = criterion.for_trainer(shift=True)
    whole, value = trained(huggingface, model(), data, loss, tmp_path, 8, 1)
    for size, parts in ((1, 8), (2, 4)):
        accumulated, _ = trained(huggingface, model(), data, loss, tmp_path, size, parts)
        torch.testing.assert_close(accumulated, whole, rtol=0, atol=2e-6)
    before = model()
    logits = before(input_ids=tokens, attention_mask=mask).logits
    expected = by_hand(criterion, logits[:, :-1].reshape(-1, 12), labels[:, 1:].reshape(-1),
                       int((labels[:, 1:] != -100).sum()))
    np.testing.assert_allclose(value, expected.item(), rtol=1e-3)


def test_outputs_of_every_kind_and_labels_of_every_shape():
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, -100, -100], [3, 0, 0, 1, -100], [2, 2, 1, 0, 3]])
    criterion = VSLoss.vs(COUNTS, 0.2, 1.0)
    loss, shifted = criterion.for_trainer(), criterion.for_trainer(shift=True)

    class Output:
        pass

    output = Output()
    output.logits = logits
    values = [loss(kind, labels).item() for kind in (logits, {"logits": logits}, output, (logits, None))]
    np.testing.assert_allclose(values, criterion(logits.movedim(-1, 1), labels).item(), rtol=1e-6)
    expected = criterion(logits[:, :-1].reshape(-1, 4), labels[:, 1:].reshape(-1))
    np.testing.assert_allclose(shifted(logits, labels).item(), expected.item(), rtol=1e-6)
    mixed = F.one_hot(labels[:, 0], 4).float()
    np.testing.assert_allclose(loss(logits[:, 0], mixed).item(), criterion(logits[:, 0], labels[:, 0]).item(),
                               rtol=1e-6)
    for items in (2 * 12, torch.tensor(2 * 12), torch.tensor([[24.0], [24.0]])):  # the last for two GPUs
        np.testing.assert_allclose(loss(logits, labels, num_items_in_batch=items).item(), values[0] / 2, rtol=1e-6)
