"""The laws that every registered geometry, metric and data set obeys; whatever registers is tested at once."""

import inspect

import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.citations import citations, markdown_table, registries
from neuralcollapse.measure import METRICS, measure
from neuralcollapse.predict import GEOMETRIES, predict
from neuralcollapse.registry import references

LOSSES = [entry.name for entry in GEOMETRIES]
VECTORS = ("weight", "delta", "iota")
COUNTS = np.array([40, 9, 9, 2, 1])


def random_parameters(loss, rng, k):
    known = GEOMETRIES[loss].parameters
    return {name: rng.uniform(0.5, 2, k) for name in VECTORS if name in known}


def neutral_parameters(loss, k):
    known = GEOMETRIES[loss].parameters
    return {name: np.zeros(k) if name == "iota" else np.ones(k) for name in VECTORS if name in known}


def grams(geometry):
    return [geometry.classifiers.unit().dense(), geometry.embeddings.unit().dense(),
            geometry.logits.dense() / geometry.logits.frobenius]


@pytest.mark.parametrize("loss", LOSSES)
def test_permuting_classes_permutes_the_geometry(loss):
    rng = np.random.default_rng(1)
    parameters, order = random_parameters(loss, rng, 5), rng.permutation(5)
    permuted = predict(COUNTS[order], loss, **{name: v[order] for name, v in parameters.items()})
    for one, two in zip(grams(predict(COUNTS, loss, **parameters)), grams(permuted), strict=True):
        np.testing.assert_allclose(one[np.ix_(order, order)], two, atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
def test_scaling_all_counts_changes_nothing(loss):
    parameters = random_parameters(loss, np.random.default_rng(2), 5)
    for one, two in zip(grams(predict(COUNTS, loss, **parameters)),
                        grams(predict(COUNTS * 1e3, loss, **parameters)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-13)


@pytest.mark.parametrize("loss", [name for name in LOSSES if GEOMETRIES[name].options.get("frame") == "orthogonal"])
@pytest.mark.parametrize("k", [2, 5, 100])
def test_equal_counts_give_orthogonal_means_where_theory_says_so(loss, k):
    geometry = predict(np.full(k, 7), loss)
    np.testing.assert_allclose(geometry.embeddings.unit().dense(), np.eye(k) / np.sqrt(k), atol=1e-13)
    centred = geometry.classifiers.dense() - geometry.classifiers.dense().mean(0)
    centred -= centred.mean(1, keepdims=True)
    np.testing.assert_allclose(centred / np.linalg.norm(centred), (np.eye(k) - 1 / k) / np.sqrt(k - 1), atol=1e-13)


@pytest.mark.parametrize("loss", [name for name in LOSSES if GEOMETRIES[name].options.get("frame") != "orthogonal"])
@pytest.mark.parametrize("k", [2, 5, 100])
def test_equal_counts_and_neutral_parameters_give_the_simplex(loss, k):
    simplex = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    for gram in grams(predict(np.full(k, 7), loss, **neutral_parameters(loss, k))):
        np.testing.assert_allclose(gram, simplex, atol=1e-13)


@pytest.mark.parametrize("loss", [entry.name for entry in GEOMETRIES if entry.options.get("parent")])
def test_neutral_parameters_recover_the_parent(loss):
    parent = GEOMETRIES[loss].options["parent"]
    for one, two in zip(grams(predict(COUNTS, loss, **neutral_parameters(loss, 5))),
                        grams(predict(COUNTS, parent, **neutral_parameters(parent, 5))), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
def test_factors_realise_what_is_predicted(loss):
    geometry = predict(COUNTS, loss, **random_parameters(loss, np.random.default_rng(3), 5))
    classifiers, means = geometry.factors(11, seed=0)
    for product, matrix in ((classifiers @ means.T, geometry.logits),
                            (classifiers @ classifiers.T, geometry.classifiers),
                            (means @ means.T, geometry.embeddings)):
        np.testing.assert_allclose(product, matrix.dense(), atol=1e-12 * matrix.frobenius)


@pytest.mark.parametrize("loss", LOSSES)
def test_bad_parameters_are_refused_by_name(loss):
    for name in random_parameters(loss, np.random.default_rng(0), 5):
        for value in (np.ones(4), [float("nan")] * 5, "abc", *([[1, 1, 1, 1, 0]] if name != "iota" else [])):
            with pytest.raises(InvalidInput, match=f"^{name} must be [^\n]*$"):
                predict(COUNTS, loss, **(neutral_parameters(loss, 5) | {name: value}))
    with pytest.raises(InvalidInput, match=f"^loss '{loss}' takes no gamma: "):
        predict(COUNTS, loss, **neutral_parameters(loss, 5), gamma=1)


def snapshot(rng):
    labels = np.repeat(np.arange(5), COUNTS + 1)
    means = rng.standard_normal((5, 8))
    return means[labels] + 0.1 * rng.standard_normal((labels.size, 8)), labels, rng.standard_normal((5, 8))


def leaves(value):
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return [np.nan if v is None else v for v in (value if isinstance(value, list) else [value])
            if not isinstance(v, str)]


def evaluate(metric, *arrays, **options):
    return leaves(measure(*arrays, targets=("seli", "etf"), **options).to_dict()[metric])


@pytest.mark.parametrize("metric", [entry.name for entry in METRICS])
def test_rotating_the_features_changes_no_metric(metric):
    rng = np.random.default_rng(4)
    features, labels, weight = snapshot(rng)
    rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    np.testing.assert_allclose(evaluate(metric, features @ rotation, labels, weight @ rotation),
                               evaluate(metric, features, labels, weight), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", [entry.name for entry in METRICS if entry.name not in ("norms", "margins")])
def test_scaling_features_and_head_changes_no_shape_metric(metric):
    features, labels, weight = snapshot(np.random.default_rng(5))
    np.testing.assert_allclose(evaluate(metric, 8 * features, labels, weight / 4),
                               evaluate(metric, features, labels, weight), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", [entry.name for entry in METRICS])
def test_the_order_of_the_samples_changes_no_metric(metric):
    rng = np.random.default_rng(6)
    features, labels, weight = snapshot(rng)
    order = rng.permutation(labels.size)
    np.testing.assert_allclose(evaluate(metric, features[order], labels[order], weight),
                               evaluate(metric, features, labels, weight), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", [entry.name for entry in METRICS])
def test_permuting_classes_permutes_per_class_numbers_and_nothing_else(metric):
    rng = np.random.default_rng(7)
    features, labels, weight = snapshot(rng)
    order = rng.permutation(5)
    place = np.argsort(order)
    ours = evaluate(metric, features, place[labels], weight[order])
    theirs = evaluate(metric, features, labels, weight)
    np.testing.assert_allclose(np.sort(ours), np.sort(theirs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("entry", [entry for registry in registries() for entry in registry], ids=lambda e: e.name)
def test_everything_registered_is_described_and_citable(entry):
    assert entry.summary.endswith(".")
    for key in entry.source:
        assert key in references()
    if entry.source:
        assert citations([entry.name])
    else:
        with pytest.raises(InvalidInput, match=f"^'{entry.name}' has no paper of its own to cite$"):
            citations([entry.name])


@pytest.mark.parametrize("entry", [*GEOMETRIES, *METRICS], ids=lambda e: e.name)
def test_every_formula_has_a_source(entry):
    assert entry.source


def test_every_reference_is_cited_by_something_or_in_a_docstring():
    cited = {key for registry in registries() for entry in registry for key in entry.source}
    from pathlib import Path

    import neuralcollapse

    text = "".join(path.read_text() for path in Path(inspect.getfile(neuralcollapse)).parent.rglob("*.py"))
    assert [key for key in references() if key not in cited and key not in text] == []


def test_the_table_in_the_documentation_is_what_is_registered():
    from pathlib import Path

    written = (Path(__file__).parents[1] / "docs/registered.md").read_text(encoding="utf-8")
    assert written.endswith(markdown_table() + "\n"), "run `neuralcollapse list` into docs/registered.md"
