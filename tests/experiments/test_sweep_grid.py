"""Sweep files: which cells they name, how folders are called, and every mistake with its one line."""

from itertools import product
import re

from hypothesis import given
from hypothesis import strategies as st
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments import TrainConfig, read_sweep

VALUES = {"ratio": st.floats(1, 1e6), "seed": st.integers(0, 10**9), "learning_rate": st.floats(1e-300, 1e300),
          "head_bias": st.booleans(), "model": st.text(max_size=200), "batch_size": st.none() | st.integers(1, 99),
          "loss_options.tau": st.floats(-5, 5) | st.text(max_size=9), "model_options.tau": st.integers(),
          "milestones": st.none() | st.lists(st.integers(1, 5), max_size=3)}


@st.composite
def grids(draw):
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True))
    return {key: draw(st.lists(VALUES[key], min_size=1, max_size=3, unique_by=repr)) for key in keys}


def setting(config, key):
    name, _, inner = key.partition(".")
    value = getattr(config, name)
    return value[inner] if inner else value


@given(grids())
def test_a_grid_is_its_product_under_names_that_are_folders_of_their_own(grid):
    base = {"epochs": 5, "loss_options": {"gamma": 0.5}}
    cells = read_sweep({"base": base, "grid": grid})
    wanted = list(product(*grid.values()))
    assert [tuple(setting(cell.config, key) for key in grid) for cell in cells] == wanted
    assert all(setting(cell.config, "loss_options.gamma") == 0.5 for cell in cells)
    names = [cell.name for cell in cells]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,110}", name) for name in names)
    assert names == [cell.name for cell in read_sweep({"base": base, "grid": grid})]


def test_cells_are_crossed_with_the_grid_and_seeds_come_last():
    cells = read_sweep({"base": {"epochs": 3}, "grid": {"ratio": [1, 10]}, "seeds": [5, 7],
                        "cells": [{"model": "mlp", "learning_rate": "1e-3"}, {"model": "cnn"}]})
    models = ("model-mlp_learning_rate-0.001", "model-cnn")
    assert [cell.name for cell in cells] == [
        f"{model}_ratio-{ratio}_seed-{seed}" for seed in (5, 7) for model in models for ratio in (1, 10)]
    assert cells[0].settings == {"model": "mlp", "learning_rate": 1e-3, "ratio": 1, "seed": 5}
    assert cells[-1].config == TrainConfig(epochs=3, model="cnn", ratio=10, seed=7)


def test_a_preset_is_where_it_starts():
    assert [(cell.name, cell.config) for cell in read_sweep({"base": {"epochs": 3}, "seeds": 1})] == [
        ("seed-0", TrainConfig(epochs=3))]
    (cell,) = read_sweep({"preset": "demo", "base": {"epochs": 3, "model_options.width": 8}, "seeds": 1})
    assert (cell.config.optimizer, cell.config.epochs) == ("adam", 3)
    assert cell.config.model_options == {"width": 8, "depth": 2, "features": 128}


@pytest.mark.parametrize(("sweep", "message"), [
    ({"grids": {}}, "unknown part 'grids' of a sweep: did you mean 'grid'? known: base, cells, grid, preset, seeds"),
    ({}, "a sweep needs a grid, cells or seeds, got nothing"),
    ({"base": {"epochs": 3}, "preset": "demo", "grid": {}},
     "a sweep needs a grid, cells or seeds, got only base and preset"),
    ({"base": {"epoch": 3}}, "unknown setting 'epoch' in base: did you mean 'epochs'? known: .*"),
    ({"grid": {"loss_option.gamma": [1]}}, "unknown setting 'loss_option' in grid: did you mean 'loss_options'? .*"),
    ({"cells": [{"sed": 3}]}, "unknown setting 'sed' in cells: did you mean 'seed'? known: .*"),
    ({"preset": "dem"}, "unknown preset 'dem': did you mean 'demo'? known: .*"),
    ({"grid": {"ratio": 10}}, "grid must give ratio a list of values, got 10"),
    ({"grid": {"ratio": []}}, r"grid must give ratio a list of values, got \[\]"),
    ({"grid": [1]}, r"grid must map settings to values, got \[1\]"),
    ({"cells": {"seed": 1}}, r"cells must be a list of settings, got \{'seed': 1\}"),
    ({"cells": [3]}, "cells must map settings to values, got 3"),
    ({"seeds": 0}, "seeds must be how many or a list of whole numbers, got 0"),
    ({"seeds": ["a"]}, r"seeds must be how many or a list of whole numbers, got \['a'\]"),
    ({"seeds": 2, "cells": [{"seed": 1}]},
     "a setting must vary in one place only, got seed in cells and again in seeds"),
    ({"seeds": 2, "grid": {"ratio": [1], "seed": [5]}},
     "a setting must vary in one place only, got seed in grid and again in seeds"),
    ({"grid": {"ratio": [1, 2]}, "cells": [{"ratio": 3}]},
     "a setting must vary in one place only, got ratio in grid and again in cells"),
    ({"seeds": 1000, "grid": {"ratio": list(range(1, 1000))}}, "a sweep takes at most 100,000 cells, got 999,000"),
    ({"grid": {"epochs.x": [1]}}, "epochs has no inner settings, got epochs.x"),
    ({"grid": {"ratio": [1, 1.0]}}, "every cell must differ from the others, got the same settings twice: ratio 1.0"),
    # All that is wrong with the first bad cell; what is wrong only together is said too.
    ({"base": {"epochs": 0, "optimizer": "sdg"}, "grid": {"ratio": [5, 0.5], "minority": [2]}},
     "epochs must be at least 1, got 0; optimizer must be 'sgd', 'adam' or 'adamw', got 'sdg'; "
     r"minority must be at most 1, got 2 \(in the cell of ratio 5, minority 2\)"),
    ({"base": {"epochs": 3}, "grid": {"measure": [[2], [9]]}},
     r"measure must lie within the 3 epochs of the run, got 9: set measure=\[…\] too \(in the cell of measure \[9\]\)"),
])
def test_mistakes_are_one_line(sweep, message):
    with pytest.raises(InvalidInput) as error:
        read_sweep(sweep)
    text = str(error.value)
    assert "\n" not in text
    assert re.fullmatch(message.replace("?", r"\?"), text), text


def test_a_file_that_is_no_sweep(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("grid: {ratio: [1")
    with pytest.raises(InvalidInput, match=r"^the configuration '.*grid.yaml' must be YAML, got .* at line 1"):
        read_sweep(path)
    with pytest.raises(InvalidInput, match=r"^cannot read the configuration '.*none.yaml': No such file or directory$"):
        read_sweep(tmp_path / "none.yaml")
