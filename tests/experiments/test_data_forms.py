"""Every form of a data set gives the same samples, reads only those that are drawn, and trains."""

import subprocess
import sys

import datasets
from forms import EACH, FORMS, NAMES, as_folder, as_npz, as_parquet_of_lists, pictures, table, write_folder
import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import LazyInputs, load, load_data, load_samples
from neuralcollapse.experiments.run import Run
from neuralcollapse.experiments.train import train


def config(dataset, **settings):
    return TrainConfig(dataset=dataset, **{"ratio": 4, "seed": 1, **settings})


def expected(images, data):
    """By NumPy: each channel centred and scaled by the training part's own mean and spread."""
    pixels = np.moveaxis(images, 3, 1).astype(np.float64)
    train = pixels[data.indices]
    mean, spread = (part[:, None, None] for part in (train.mean((0, 2, 3)), train.std((0, 2, 3))))
    return (train - mean) / spread, (pixels[data.test_indices] - mean) / spread


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_samples(form, tmp_path):
    images, labels = pictures()
    data = load_data(config(form(tmp_path, images, labels)))
    assert data.counts.values.tolist() == [16, 16, 4, 4]
    assert data.counts.names == NAMES
    assert data.test_counts.tolist() == [4] * 4
    assert np.array_equal(labels[data.indices], data.labels.numpy())
    assert np.array_equal(labels[data.test_indices], data.test_labels.numpy())
    assert not np.intersect1d(data.indices, data.test_indices).size
    train, test = expected(images, data)
    np.testing.assert_allclose(data.inputs.numpy(), train, rtol=1e-6, atol=1e-6)  # float32
    np.testing.assert_allclose(data.test_inputs.numpy(), test, rtol=1e-6, atol=1e-6)
    reference = load_data(config(as_npz(tmp_path, images, labels)))
    assert np.array_equal(data.indices, reference.indices)
    assert torch.equal(data.inputs, reference.inputs)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_lazy_inputs_are_those_in_memory(form, tmp_path, monkeypatch):
    given = config(form(tmp_path, *pictures()), imbalance="natural")
    whole = load_data(given)
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    lazy = load_data(given)
    assert isinstance(lazy.inputs, LazyInputs)
    for part in ("inputs", "test_inputs"):
        inputs, tensor = getattr(lazy, part), getattr(whole, part)
        assert (len(inputs), inputs.shape, inputs.dtype) == (len(tensor), tuple(tensor.shape), tensor.dtype)
        assert (inputs.device, inputs.element_size()) == (tensor.device, tensor.element_size())
        index = torch.tensor([3, 1, 3, len(tensor) - 1])
        for chosen in (slice(None), slice(2, 9), index, -1):
            assert torch.equal(inputs[chosen], tensor[chosen])
        for mine, its in zip(inputs.split(7), tensor.split(7), strict=True):
            assert torch.equal(mine, its)
    moved = lazy.inputs.to("meta")
    assert moved.device == torch.device("meta")
    assert repr(moved) == f"LazyInputs({len(whole.labels)} of shape (3, 8, 8), torch.float32, on meta)"
    assert np.array_equal(lazy.mean, whole.mean)
    assert np.array_equal(lazy.spread, whole.spread)


def test_images_that_are_not_drawn_are_not_decoded(tmp_path, monkeypatch):
    given = config(as_folder(tmp_path, *pictures()))
    before = load_data(given)
    drawn = {*before.indices.tolist(), *before.test_indices.tolist()}
    files = sorted((tmp_path / "pictures").rglob("*.png"))
    assert len(drawn) < len(files)
    for i, file in enumerate(files):
        if i not in drawn:
            file.write_bytes(file.read_bytes()[:60])  # its header is whole, its pixels are not
    assert torch.equal(load_data(given).inputs, before.inputs)
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    assert torch.equal(load_data(given).inputs[:], before.inputs)


@pytest.mark.parametrize("bytes_in_memory", [2**30, 0])
def test_rows_that_are_not_drawn_are_not_read(tmp_path, monkeypatch, bytes_in_memory):
    monkeypatch.setattr(load, "IN_MEMORY", bytes_in_memory)
    features, labels = np.random.default_rng(0).normal(size=(80, 5)), np.arange(80) % 4

    def written(values):
        pq.write_table(pa.table({"features": values.tolist(), "y": labels}), tmp_path / "a.parquet")
        return load_data(config(f"parquet:{tmp_path / 'a.parquet'}"))

    before = written(features)
    rest = np.setdiff1d(np.arange(80), np.concatenate([before.indices, before.test_indices]))
    features[rest] = np.nan
    after = written(features)
    assert rest.size == 80 - 40 - 16
    assert torch.equal(after.inputs[:], before.inputs[:])


def test_statistics_over_many_parts_are_those_of_two_passes(monkeypatch):
    from neuralcollapse.experiments.data import lazy
    from neuralcollapse.experiments.data.statistics import channel_statistics

    monkeypatch.setattr(lazy, "_AT_ONCE", 3 * 16)  # three images a part
    images = np.random.default_rng(0).normal(1e4, 1e-2, (50, 1, 4, 4))
    index = np.random.default_rng(1).permutation(50)[:37]
    mean, spread = channel_statistics(images, index)
    # A difference of squares would have lost all of the spread, (1e-2)² beside (1e4)².
    np.testing.assert_allclose(mean, [images[index].mean()], rtol=1e-14)
    np.testing.assert_allclose(spread, [images[index].std()], rtol=1e-9)


def test_a_constant_that_float64_rounds_keeps_its_scale():
    from neuralcollapse.experiments.data.statistics import channel_statistics

    rows = np.full((1000, 2), 0.1, np.float32) * np.array([1, 0], np.float32)
    assert channel_statistics(rows, np.arange(1000))[1].tolist() == [1.0, 1.0]


def own_parts(folder, kind):
    """Train and test parts of a data set's own, in one of the forms that have them."""
    (train, labels), (test, test_labels) = pictures(), pictures(seed=1, each=3)
    if kind == "folder":
        write_folder(folder / "train", train, labels)
        write_folder(folder / "val", test, test_labels)
        return f"folder:{folder}", {}
    both = datasets.DatasetDict({"train": table(train, labels), "test": table(test, test_labels)})
    if kind == "saved":
        both.save_to_disk(folder / "saved")
        return f"hf:{folder / 'saved'}", {}
    (folder / "hub").mkdir()
    for name, part in both.items():
        part.to_parquet(folder / "hub" / f"{name}.parquet")
    if kind == "hub":
        return f"hf:{folder / 'hub'}", {}
    return f"parquet:{folder / 'hub' / 'train.parquet'}", {"test": str(folder / "hub" / "test.parquet")}


@pytest.mark.parametrize("kind", ["folder", "saved", "hub", "parquet"])
def test_a_test_part_of_its_own_is_used_whole(kind, tmp_path):
    name, options = own_parts(tmp_path, kind)
    data = load_data(config(name, data_options=options, n_max=EACH))
    assert data.counts.values.tolist() == [20, 20, 5, 5]  # nothing of the training part was held out
    assert data.test_indices.tolist() == list(range(80, 92))
    assert data.test_counts.tolist() == [3] * 4
    images = np.concatenate([pictures()[0], pictures(seed=1, each=3)[0]])
    np.testing.assert_allclose(data.test_inputs.numpy(), expected(images, data)[1], rtol=1e-6, atol=1e-6)
    without = load_data(config(name, data_options={**options, "test": "none"}))
    assert max(without.test_indices) < 80


def test_images_of_several_sizes_and_kinds_are_brought_to_one(tmp_path):
    rng = np.random.default_rng(0)
    for i, (shape, suffix) in enumerate([((8, 8), "png"), ((12, 16, 3), "png"), ((20, 10, 4), "png"), ((9, 9), "bmp")]):
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, shape).astype(np.uint8)).save(tmp_path / name / f"{i}.{suffix}")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    samples = load_samples(f"folder:{tmp_path}", {"size": 8})
    assert samples.inputs.shape == (8, 3, 8, 8)
    rows = samples.inputs[np.arange(8)]
    grey = np.asarray(Image.open(tmp_path / "a" / "0.png"))
    assert np.array_equal(rows[0], np.stack([grey] * 3))  # its size was right: nothing is interpolated
    # 12 × 16 is scaled by 2/3 to 8 × 10⅔, of which the middle is kept.
    with Image.open(tmp_path / "a" / "1.png") as image:
        by_hand = image.resize((8, 8), Image.Resampling.BILINEAR, box=(2, 0, 14, 12))
    assert np.abs(rows[1].astype(int) - np.moveaxis(np.asarray(by_hand), 2, 0)).max() <= 1


def test_grey_images_have_one_channel_and_palettes_three(tmp_path):
    for name, images in (("grey", pictures(shape=(6, 5))[0][:2]), ("palette", pictures()[0][:2])):
        for i, image in enumerate(images):
            for label in ("a", "b"):
                (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(image)
                picture = picture.quantize(8) if name == "palette" else picture
                picture.save(tmp_path / name / label / f"{i}.gif" if name == "palette" else
                             tmp_path / name / label / f"{i}.png")
    assert load_samples(f"folder:{tmp_path / 'grey'}").inputs.shape == (4, 1, 6, 5)
    assert load_samples(f"folder:{tmp_path / 'palette'}").inputs.shape == (4, 3, 8, 8)


def test_a_class_called_train_is_a_class(tmp_path):
    """Hugging Face's own reader of image folders would take it for the training part."""
    images, labels = pictures()
    write_folder(tmp_path, images[:40], labels[:40])
    (tmp_path / "ant").rename(tmp_path / "train")
    assert load_samples(f"folder:{tmp_path}").names == ("bee", "train")


def test_columns_are_named_where_several_could_be_meant(tmp_path):
    images, labels = pictures()
    both = table(images, labels).add_column("coarse", (labels // 2).tolist())
    both = both.cast_column("coarse", datasets.ClassLabel(names=["insect", "none", "mammal"]))
    both.save_to_disk(tmp_path / "saved")
    samples = load_samples(f"hf:{tmp_path / 'saved'}", {"labels": "coarse"})
    assert samples.names == ("insect", "none")
    assert np.array_equal(samples.labels, labels // 2)


def test_lists_of_images_move_their_channels_first(tmp_path):
    images, labels = pictures()
    rows = load_samples(as_parquet_of_lists(tmp_path, images, labels)).inputs
    assert rows.shape == (80, 3, 8, 8)
    assert np.array_equal(rows[np.array([70, 3])], np.moveaxis(images[[70, 3]], 3, 1))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_trains(form, tmp_path):
    run = train(config(form(tmp_path, *pictures()), epochs=1, threads=1, model_options={"width": 8}), tmp_path / "run")
    assert run.finished
    assert run.counts.names == NAMES
    assert run.data["input_shape"] == [3, 8, 8]


def test_training_by_the_command_line(tmp_path, cli):
    name = as_folder(tmp_path, *pictures(shape=(12, 10, 3)))
    result = cli("train", "--dataset", name, "--ratio", 4, "--epochs", 1, "--set", "model_options.width=8",
                 "--set", "data_options.size=8", "--threads", 1, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    run = Run.open(tmp_path / "run")
    assert run.data["input_shape"] == [3, 8, 8]
    with np.load(tmp_path / "run" / "indices.npz") as indices:
        assert {part: indices[part].size for part in indices.files} == {"train": 40, "test": 16}


LAZILY = """
import sys
from neuralcollapse.experiments.data import load
load.IN_MEMORY = 0
from neuralcollapse.experiments import TrainConfig, train
train(TrainConfig.from_yaml(sys.argv[1]), sys.argv[2])
"""


def test_a_run_on_lazy_inputs_is_the_run_in_memory(tmp_path):
    given = config(as_folder(tmp_path, *pictures()), epochs=2, batch_size=16, threads=1, augment="none",
                   model_options={"width": 8, "features": 6})
    whole = train(given, tmp_path / "whole")
    (tmp_path / "config.yaml").write_text(given.to_yaml())
    subprocess.run([sys.executable, "-c", LAZILY, tmp_path / "config.yaml", tmp_path / "lazy"], check=True)
    lazy = Run.open(tmp_path / "lazy")
    for mine, its in zip(lazy.history, whole.history, strict=True):
        assert {**mine, "seconds": None} == {**its, "seconds": None}
