"""The cache of decoded images: what it holds, what it says, when it is not used."""

from collections import namedtuple
import json
import os
from pathlib import Path
import shutil

from forms import as_folder, pictures
import numpy as np
from PIL import Image
import pytest
import torch

from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load, load_data
from neuralcollapse.experiments.data.cache import cache_folder, cached, clear_cache


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "IN_MEMORY", 0)
    return TrainConfig(dataset=as_folder(tmp_path, *pictures()), ratio=4)


def spoil_pixels(tmp_path, which):
    """Cut the files short without a trace in what the key of the cache covers: name, size, time."""
    for file in [sorted((tmp_path / "pictures").rglob("*.png"))[i] for i in which]:
        before = file.stat()
        file.write_bytes(file.read_bytes()[:60].ljust(before.st_size, b"\0"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_images_are_decoded_once(given, tmp_path):
    first = load_data(given)
    entry, = cached()
    assert {key: entry[key] for key in ("source", "shape", "images", "of")} == {
        "source": str(tmp_path / "pictures"), "shape": [3, 8, 8], "images": 56, "of": 80}
    assert Path(entry["folder"]).parent == cache_folder()
    spoil_pixels(tmp_path, [*first.indices, *first.test_indices])
    again = load_data(given)  # it would be refused if anything were decoded
    assert torch.equal(again.inputs[:], first.inputs[:])
    assert torch.equal(again.test_inputs[:], first.test_inputs[:])


def test_another_draw_decodes_only_what_is_new(given, tmp_path):
    first = load_data(given)
    spoil_pixels(tmp_path, [*first.indices, *first.test_indices])
    other = load_data(given.replace(seed=1))
    pixels = np.moveaxis(pictures()[0], 3, 1)[other.indices]
    shown = other.inputs[:].numpy() * other.spread[:, None, None] + other.mean[:, None, None]
    np.testing.assert_allclose(shown, pixels, atol=1e-4)
    drawn = {*first.indices, *first.test_indices, *other.indices, *other.test_indices}
    assert cached()[0]["images"] == len(drawn) > 56


def test_changed_images_and_another_size_are_other_entries(given, tmp_path):
    load_data(given)
    file = next((tmp_path / "pictures").rglob("*.png"))
    os.utime(file, ns=(1, 1))
    load_data(given)
    load_data(given.replace(data_options={"size": 4}))
    assert [entry["shape"] for entry in sorted(cached(), key=lambda entry: entry["shape"][1])] == [
        [3, 4, 4], [3, 8, 8], [3, 8, 8]]
    assert clear_cache() > 0
    assert cached() == []


def test_an_interruption_keeps_what_was_decoded(given, monkeypatch):
    from neuralcollapse.experiments.data import lazy

    monkeypatch.setattr(lazy, "_AT_ONCE", 10 * 3 * 64)  # ten images a part
    opened, calls = Image.open, []

    def stop_within_the_third(source):
        calls.append(source)
        if len(calls) > 80 + 22:  # after the headers of all
            raise KeyboardInterrupt
        return opened(source)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", stop_within_the_third)
        with pytest.raises(KeyboardInterrupt):
            load_data(given)
    assert cached()[0]["images"] == 20
    load_data(given)
    assert cached()[0]["images"] == 56


@pytest.mark.parametrize("obstacle", ["small disk", "no folder"])
def test_without_room_images_are_decoded_when_they_are_fetched(given, tmp_path, monkeypatch, obstacle):
    if obstacle == "no folder":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**20, 2**20 - 100, 100))
    data = load_data(given)
    assert cached() == []
    pixels = np.moveaxis(pictures()[0], 3, 1)[data.indices]
    shown = data.inputs[:].numpy() * data.spread[:, None, None] + data.mean[:, None, None]
    np.testing.assert_allclose(shown, pixels, atol=1e-4)


def test_what_fits_in_memory_is_not_kept(tmp_path):
    load_data(TrainConfig(dataset=as_folder(tmp_path, *pictures()), ratio=4))
    assert cached() == []


def test_a_broken_entry_is_decoded_anew(given):
    first = load_data(given)
    folder = Path(cached()[0]["folder"])
    (folder / "held.npy").write_bytes(b"\x93NUMPY, cut")
    (folder / "about.json").write_text("{")
    assert cached() == []
    assert torch.equal(load_data(given).inputs[:], first.inputs[:])
    assert cached()[0]["images"] == 56


def test_the_command_lists_and_clears(given, tmp_path, cli):
    load_data(given)
    result = cli("data")
    assert result.code == 0
    assert f"{tmp_path / 'pictures'}: 56 of 80 at 3×8×8" in result.out
    assert "cifar10        to be downloaded from the hub" in result.out
    listed = json.loads(cli("data", "--json").out)
    assert [entry["images"] for entry in listed["decoded"]["entries"]] == [56]
    assert {entry["name"]: entry["where"] for entry in listed["data_sets"]}["digits"] == "embedded"
    cleared = json.loads(cli("data", "--clear", "--json").out)
    assert cleared["decoded"]["entries"] == []
    assert not cache_folder().exists()


def test_the_command_describes(tmp_path, cli):
    name = as_folder(tmp_path, *pictures())
    assert json.loads(cli("data", name, "--set", "size=4", "--json").out) == {
        "dataset": name, "samples": 80, "shape": [3, 4, 4], "holds": "images", "own_test_part": None, "classes": 4,
        "names": ["ant", "bee", "cat", "dog"], "counts": [20] * 4}
    assert cli("data", "digits").out.splitlines()[:3] == [
        "digits: 1,797 samples, images of shape 1×8×8", "10 classes of 174 to 183 samples", "  0: 178"]
    (tmp_path / "a.txt").write_text("to be or not to be " * 50)
    assert cli("data", f"text:{tmp_path / 'a.txt'}", "--set", "length=9").out.splitlines() == [
        f"text:{tmp_path / 'a.txt'}: 33 samples, token ids of shape 10",
        "No labels: every token is predicted from those before it."]


@pytest.mark.parametrize(("arguments", "message"), [
    (["digit"], "unknown data set 'digit': did you mean 'digits'? known: cifar10, cifar100, digits, fashion-mnist, "
                "folder, hf, mnist, mnist5k, npz, parquet, text, tokens"),
    (["digits", "--clear"], "--clear removes all decoded images: give it without a data set, got 'digits'"),
    (["--set", "size=3"], "--set is for one data set: give its name"),
    (["folder:x", "--set", "size"], "--set takes KEY=VALUE, got 'size'"),
    (["folder:x", "--set", "size=["], "the value of size must be YAML, got '['"),
    (["folder:x", "--set", "size=null"], "data option 'size' must be a whole number ≥ 1, got None"),
    (["folder:x"], "cannot read the data set 'x': No such file or directory"),
    (["folder"], "data set 'folder' must be given as 'folder:PATH', got 'folder'")])
def test_bad_commands(cli, arguments, message):
    assert cli("data", *arguments) == (2, "", f"neuralcollapse: {message}\n")
