"""The study of a vocabulary: its text and counts, its reading of a tiny trained model, and what it asks."""

from collections import Counter
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralcollapse import ClassCounts, InvalidInput, predict
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.studies import run_study, vocabulary
from neuralcollapse.experiments.studies.vocabulary import nearest_of_rank, network_config, slope, write_text


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out, told = tmp_path_factory.mktemp("study"), []
    with pytest.MonkeyPatch.context() as patch:  # a smaller setting of the same study
        patch.setattr(vocabulary, "_QUICK", {"most": 40, "epochs": 1, "width": 8})
        table = run_study("vocabulary", out, quick=True, progress=told.append)
    return out, table.read_text(encoding="utf-8"), told


@pytest.fixture(scope="module")
def tokens(study):
    return pq.read_table(study[0] / "tokens.parquet").to_pylist()


def test_it_leaves_data_pictures_a_table_and_a_run_that_resumes(study):
    out, table, told = study
    assert {path.name for path in out.iterdir()} == {"text.txt", "runs", "tokens.parquet", "models.parquet",
                                                     "vocabulary.png", "vocabulary.pdf", "gallery.md", "table.md",
                                                     "study.json"}
    assert (out / "runs" / "seed-0" / "checkpoint" / "state.pt").is_file()
    assert told[0].startswith("seed 0: epoch 1 of 1, loss ")
    model, = pq.read_table(out / "models.parquet").to_pylist()
    assert f"| ‖w_c‖ | {model['slope/classifiers']:.2g} | {model['seli/slope/classifiers']:.2g} |" in table


def test_counts_are_those_of_the_text_and_zipf_s(study, tokens):
    words = re.findall(r"\w+(?:['’]\w+)*|[^\w\s]", (study[0] / "text.txt").read_text(encoding="utf-8").lower())
    whole = Counter(words)
    counts = np.array(sorted((row["count"] for row in tokens), reverse=True))
    # Four fifths of the windows are trained on.
    assert sum(row["count"] for row in tokens) == pytest.approx(
        0.8 * sum(whole[row["token"]] for row in tokens), rel=0.01)
    assert all(row["count"] <= whole[row["token"]] for row in tokens)
    zipf, explained = slope(np.arange(1, counts.size + 1), counts)
    assert -1.4 < zipf < -0.6
    assert explained > 0.9


def test_predictions_are_seli_s_up_to_one_factor(tokens):
    counts = np.array([row["count"] for row in tokens])
    for part in ("classifiers", "embeddings"):
        seli = getattr(predict(ClassCounts(counts)), part).norms
        shown, measured = (np.array([row[key] for row in tokens]) for key in (f"seli/{part}", part))
        np.testing.assert_allclose(shown / seli, shown[0] / seli[0], rtol=1e-6)
        assert np.log(shown).mean() == pytest.approx(np.log(measured).mean())


def test_the_slope_is_that_of_a_power_law_under_noise_that_is_orthogonal_to_it():
    counts = np.exp(np.array([0.0, 1.0, 2.0, 3.0]))
    noise = np.array([1.0, -1.0, -1.0, 1.0])  # of no mean and no trend
    found, explained = slope(counts, 3 * counts**0.25 * np.exp(0.1 * noise))
    assert found == pytest.approx(0.25)
    assert explained == pytest.approx(0.3125 / (0.3125 + 0.04))  # 0.25²·5 against 0.1²·4


def test_the_nearest_of_a_rank_is_attained_by_it():
    gram = predict(ClassCounts([50, 20, 9, 3])).classifiers
    values, vectors = np.linalg.eigh(gram.block(np.arange(4), np.arange(4)))
    factor = vectors[:, -2:] * np.sqrt(values[-2:])
    assert nearest_of_rank(gram, 2) == pytest.approx(gram.distance(factor))
    assert nearest_of_rank(gram, 3) == pytest.approx(0, abs=1e-7)


def test_the_penalties_are_those_of_the_summed_loss(tmp_path):
    config = network_config(write_text(tmp_path), 0, quick=True)
    assert config.ridges(float(load_data(config).counts.n)) == pytest.approx((1.0, 0.09))


@pytest.mark.parametrize(("given", "message"), [
    ({"ratios": [5]}, "leave ratios out, got (5.0,)"), ({"steps": 3}, "leave steps out, got 3")])
def test_what_cannot_be_asked_is_refused(tmp_path, given, message):
    with pytest.raises(InvalidInput) as error:
        run_study("vocabulary", tmp_path, **given)
    assert str(error.value) == f"study vocabulary has the text's own counts and trains for epochs: {message}"
