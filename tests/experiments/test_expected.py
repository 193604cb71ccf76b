"""What a run's settings lead to, against direct descent on the objective they state."""

import numpy as np
import pytest
from scipy.optimize import minimize
import torch

from neuralcollapse import ClassCounts, OutsideTheory, TrainConfig, predict, train
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.expected import Expected
from neuralcollapse.experiments.frozen import Frozen
from neuralcollapse.experiments.session import Session
from neuralcollapse.show.decay import along_decay
from neuralcollapse.show.reading import Reading
from neuralcollapse.steer.posthoc import logit_adjustment

COUNTS = ClassCounts([24, 24, 6, 3])
TINY = {"dataset": "digits", "ratio": 8, "n_max": 40, "model_options": {"width": 24, "depth": 1, "features": 12},
        "threads": 1, "batch_size": 32, "learning_rate": 0.05}


def expected(**settings):
    return Expected.of(TrainConfig(**settings), COUNTS)


def descended(found, drawn, ridge, bias, d=5):
    """Grams at the minimum of the mean loss over what is drawn, with both penalties, from a random start."""
    loss, k, n = found.remedy.loss().double(), COUNTS.k, float(COUNTS.n)
    share, rng = torch.from_numpy(drawn / drawn.sum()), np.random.default_rng(0)

    def objective(flat):
        point = torch.from_numpy(flat).requires_grad_()
        weight, means = point[:k * d].view(k, d), point[k * d:2 * k * d].view(k, d)
        logits = means @ weight.T + (point[2 * k * d:] if bias else 0)
        loss.reduction = "none"
        value = share @ loss(logits, torch.arange(k)) + ridge / (2 * n) * weight.square().sum()
        # (p/2) Σ‖h‖² over the n samples is n times its mean over what is drawn, and λ_H = n·p.
        value = value + ridge / 2 * share @ means.square().sum(1)
        value.backward()
        return value.item(), point.grad.numpy()

    start = rng.standard_normal(2 * k * d + k)
    best = minimize(objective, start, jac=True, method="L-BFGS-B",
                    options={"maxiter": 20_000, "maxfun": 20_000, "ftol": 0, "gtol": 1e-11, "maxcor": 50}).x
    weight, means = best[:k * d].reshape(k, d), best[k * d:2 * k * d].reshape(k, d)
    return weight @ weight.T, means @ means.T


def unit(gram):
    return gram / np.linalg.norm(gram)


@pytest.mark.parametrize(("settings", "drawn"), [
    ({"sampling": "oversampled"}, np.full(4, 24)),
    ({"sampling": "oversampled", "loss": "logit-adjusted"}, np.full(4, 24)),
    ({"sampling": "oversampled", "loss": "vs", "loss_options": {"gamma": 0.2, "tau": 0.5}, "head_bias": True},
     np.full(4, 24)),
    ({"loss": "ldt", "head_bias": True}, COUNTS.values),
    ({"loss": "weighted"}, COUNTS.values),
], ids=lambda case: "-".join(map(str, case.values())) if isinstance(case, dict) else "")
def test_the_geometry_is_where_descent_on_the_stated_objective_ends(settings, drawn):
    found = expected(**settings)
    geometry = found.geometry(0.5)
    classifiers, means = descended(found, drawn.astype(float), 0.5, found.bias)
    # 1e-5: the distance of a flat minimum of the loss to 1e-11 of its gradient.
    np.testing.assert_allclose(unit(classifiers), unit(geometry.classifiers.dense()), atol=1e-5)
    np.testing.assert_allclose(unit(means), unit(geometry.embeddings.dense()), atol=1e-5)


def test_oversampled_factors_realise_what_is_predicted():
    geometry = expected(sampling="oversampled", loss="vs").geometry(0.5)
    W, M = geometry.factors()
    np.testing.assert_allclose(W @ W.T, geometry.classifiers.dense(), atol=1e-9)
    np.testing.assert_allclose(W @ M.T, geometry.logits.dense(), atol=1e-9)


@pytest.mark.parametrize(("settings", "merging"), [
    ({}, np.sqrt(COUNTS.values)),
    ({"sampling": "oversampled"}, np.full(4, np.sqrt(57 / 4))),
    ({"head": "etf"}, np.full(4, np.inf)),
    ({"loss": "weighted"}, 57 / (4 * np.sqrt(COUNTS.values))),
])
def test_where_classes_merge(settings, merging):
    np.testing.assert_allclose(expected(**settings).merging(), merging, rtol=1e-12)


def test_merging_at_other_counts_fits_the_loss_anew():
    other = ClassCounts([24, 24, 12, 12])
    np.testing.assert_allclose(expected(loss="weighted").merging(other), 72 / (4 * np.sqrt(other.values)), rtol=1e-12)


@pytest.mark.parametrize("settings", [{"head": "etf"}, {"loss": "scl"}])
def test_frames_are_the_simplex_at_any_ridge(settings):
    for ridge in (None, 2.0):
        geometry = expected(**settings).geometry(ridge)
        assert geometry.classifiers.distance_to(predict([1] * 4, "etf").classifiers) < 1e-12


def test_outside_theory_falls_back_to_cross_entropy_and_says_so_where_asked():
    found = expected(head="seli")
    with pytest.raises(OutsideTheory, match="is known for classifiers fixed in a simplex, not in 'seli'"):
        found.geometry()
    assert found.geometry_or_nearest().loss == "ce"


@pytest.mark.parametrize(("settings", "targets"), [
    ({}, ["seli", "etf", "ridge:0.5"]),
    ({"loss": "logit-adjusted"}, ["seli", "etf", "ridge:0.5"]),
    ({"loss": "cdt"}, ["loss", "seli", "etf", "ridge:0.5"]),
    ({"loss": "ldt"}, ["loss", "seli", "etf", "ridge:0.5"]),  # its embeddings are no simplex
    ({"sampling": "oversampled"}, ["etf", "seli", "ridge:0.5"]),
    ({"head": "etf"}, ["etf", "seli", "ridge:0.5"]),
], ids=lambda case: "-".join(case.values()) if isinstance(case, dict) else "")
def test_targets_have_the_run_s_own_prediction_first(settings, targets):
    found = expected(**settings).targets((0.5, 0.5))
    assert list(found) == targets
    assert found["ridge:0.5"].classifiers.distance_to(expected(**settings).geometry(0.5).classifiers) < 1e-12


@pytest.mark.parametrize(("settings", "posterior"), [
    ({}, lambda z: z),
    ({"loss": "logit-adjusted"}, lambda z: z + np.log(COUNTS.values)),
    ({"loss": "vs", "loss_options": {"gamma": 0.3, "tau": 0.5}},
     lambda z: z * (COUNTS.values / 24) ** 0.3 + 0.5 * np.log(COUNTS.values)),
    ({"loss": "weighted"}, lambda z: z + np.log(COUNTS.values)),  # its posterior has equal priors already
    ({"sampling": "oversampled"}, lambda z: z + np.log(COUNTS.values)),
], ids=lambda case: "-".join(map(str, case.values())) if isinstance(case, dict) else "")
def test_logits_are_adjusted_once(settings, posterior):
    z = np.random.default_rng(1).standard_normal((6, 4))
    rule = logit_adjustment(None, None, np.eye(4), counts=COUNTS, **expected(**settings).posterior())
    wanted = posterior(z) - np.log(COUNTS.values)
    found = rule.logits(z).numpy()
    np.testing.assert_allclose(found - found.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=1e-12)


def test_label_temperatures_have_no_posterior():
    with pytest.raises(OutsideTheory, match="are those of no posterior"):
        expected(loss="ldt").posterior()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = TrainConfig(**TINY, epochs=4, measure="every 4", loss="ldt", head_weight_decay=1e-3, feature_penalty=1e-3)
    return train(config, tmp_path_factory.mktemp("runs") / "ldt")


def test_a_run_is_held_against_its_own_loss_and_so_is_its_report(run):
    distance = run.history[-1]["measurement"]["distance"]
    reading = Reading(run)
    assert distance["target"] == reading.target == "loss"
    geometry = reading.geometry("loss")
    wanted = predict(run.counts, "ldt", delta=(run.counts.values / run.counts.n_max) ** 0.5)
    assert geometry.classifiers.distance_to(wanted.classifiers) < 1e-9
    (at,) = [name for name in reading.targets if name.startswith("ridge:")]
    wanted = predict(run.counts, "ldt", delta=(run.counts.values / run.counts.n_max) ** 0.5, ridge=float(at[6:]))
    assert reading.geometry(at).embeddings.distance_to(wanted.centred("classes").embeddings) < 1e-6
    measured = run.grams(4)["classifiers"].astype(float)
    np.testing.assert_allclose(np.linalg.norm(measured - unit(wanted.classifiers.dense())),
                               reading.last_distance("classifiers", at), atol=1e-5)


def test_the_path_along_the_ridge_is_that_of_the_run_s_loss(run):
    reading = Reading(run)
    found = along_decay(reading)
    wanted = reading.geometry(f"ridge:{found.own:.6g}")
    assert found.path.at(found.own).classifiers.distance_to(wanted.classifiers) < 1e-5
    assert found.safety is None, "where classes merge is said of cross-entropy"


def test_no_path_is_drawn_where_none_is_known():
    for settings in ({"head": "etf"}, {"loss": "focal"}, {"loss": "scl"}):
        with pytest.raises(OutsideTheory, match="known for the cross-entropies and a learned head"):
            expected(**settings).in_terms_of_cross_entropy()


def test_remedies_after_training_know_what_was_trained_with(run):
    rows = {row.name: row for row in Frozen.of_run(run).posthoc(["logit-adjustment", "predicted-norms", "refit"])}
    assert list(rows) == ["as-trained", "logit-adjustment", "predicted-norms", "refit"]
    assert "no posterior" in rows["logit-adjustment"].refused
    assert rows["predicted-norms"].rule.parameters["loss"] == "ldt"
    assert rows["predicted-norms"].rule.parameters["ridge"] == pytest.approx(float(run.counts.n) * 1e-3)


# -- a loss of features --------------------------------------------------------------------------------------------


def test_a_contrastive_loss_trains_the_features_and_cross_entropy_the_head_alone():
    config = TrainConfig(**TINY | {"model_options": {**TINY["model_options"], "rectify": True}}, loss="scl",
                         sampling="binding", epochs=1, weight_decay=0.0)
    data = load_data(config)
    session = Session(config, data)
    body = list(session.model.body.parameters())
    features = session.features(data.inputs)
    inputs, labels = data.inputs[:30], data.labels[:30]
    session.run_epoch(1)
    assert session.features(data.inputs).shape == features.shape
    session.optimizer.zero_grad()
    found = []
    with session.head_inputs(found, detached=True):
        torch.nn.functional.cross_entropy(session.model(inputs), labels).backward(inputs=[*body, session.head.weight])
    assert all(p.grad is None or not p.grad.any() for p in body)
    assert session.head.weight.grad.any()
    lengths = torch.linalg.vector_norm(found[0], dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=1e-5, atol=0)
    assert bool((found[0] >= 0).all())


def test_bound_batches_hold_one_example_of_every_class():
    config = TrainConfig(**TINY | {"batch_size": 12}, sampling="binding")
    data = load_data(config)
    session = Session(config, data)
    batches = list(session._batches.epoch(data.inputs, seed=0))
    assert all(set(batch.labels.tolist()) == set(range(10)) for batch in batches)
    assert sum(len(batch.labels) for batch in batches) >= len(data.labels)
    assert all(batch.own == batch.whole == len(batch.labels) for batch in batches)


def test_contrastive_features_near_the_orthogonal_frame_and_its_head_the_simplex(tmp_path):
    model = {"width": 64, "depth": 1, "features": 24, "rectify": True}
    config = TrainConfig(dataset="digits", ratio=4, n_max=40, model_options=model, threads=1, batch_size=64,
                         learning_rate=0.03, epochs=150, measure="every 150", loss="scl", sampling="binding",
                         weight_decay=1e-4)
    run = train(config, tmp_path / "run")
    last = run.history[-1]["measurement"]
    assert last["distance"]["target"] == "etf"
    first = run.history[0]["measurement"]
    assert last["distances"]["etf"]["embeddings"] < 0.2 < first["distances"]["etf"]["embeddings"]
    assert run.history[-1]["test"]["balanced_accuracy"] > 0.8
