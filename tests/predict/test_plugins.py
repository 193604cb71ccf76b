"""Losses of other packages: their norms and paths follow the parameters of the geometry they return."""

from dataclasses import replace

import numpy as np
import pytest

from neuralcollapse.checks import OutsideTheory
from neuralcollapse.predict import GEOMETRIES, predict, ridge_path
from neuralcollapse.predict.losses import cross_entropy, label_dependent_temperature

COUNTS = [10, 10, 1, 1]


@pytest.fixture
def registered(monkeypatch):
    """`root` is cross-entropy with δ = √n of its own; `plain` is renamed, and says no parent."""
    monkeypatch.setattr(GEOMETRIES, "_entries", dict(GEOMETRIES._entries))

    @GEOMETRIES.register("plain")
    def plain(counts, at):
        """Cross-entropy by another name."""
        return replace(cross_entropy(counts, at), loss="plain")

    @GEOMETRIES.register("root", parent="ldt")
    def root(counts, at):
        """Label temperatures that follow from the counts."""
        return replace(label_dependent_temperature(counts, at, delta=np.sqrt(counts.values)), loss="root")

    @GEOMETRIES.register("frame")
    def frame(counts, at):
        """Not a cross-entropy."""
        return replace(predict(counts, "mse", ridge=at.ridge), loss="frame")


@pytest.mark.parametrize("norm", ["nuclear", "spectral", "max"])
def test_a_loss_without_parent_has_the_margin_of_what_it_returns(registered, norm):
    assert predict(COUNTS, "plain", norm=norm).margin == predict(COUNTS, norm=norm).margin


@pytest.mark.parametrize("norm", ["nuclear", "spectral"])
def test_temperatures_that_a_loss_sets_itself_count(registered, norm):
    known = predict(COUNTS, "ldt", delta=np.sqrt(COUNTS), norm=norm)
    assert predict(COUNTS, "root", norm=norm).margin == known.margin
    with pytest.raises(OutsideTheory, match=r"^the max norm's largest margin is known without temperatures"):
        predict(COUNTS, "root", norm="max")


def test_groups_collapse_where_the_loss_makes_them(registered):
    events = ridge_path(COUNTS, points=5, loss="root").events
    assert [(event.ridge, event.confirmed) for event in events] == [
        (pytest.approx(1), True), (pytest.approx(10), True), (pytest.approx(10), True)]


def test_what_is_no_cross_entropy_has_neither_norm_nor_path(registered):
    with pytest.raises(OutsideTheory, match=r"^the optimiser's norm is known to matter .* got loss 'frame'"):
        predict(COUNTS, "frame", norm="max")
    with pytest.raises(OutsideTheory, match=r"^a path along the ridge is solved for the cross-ent.* got loss 'frame'"):
        ridge_path(COUNTS, loss="frame")
