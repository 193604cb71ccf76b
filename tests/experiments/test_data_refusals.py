"""Every bad folder, table and hub with its message: one line, before training, nothing written."""

import datasets
from forms import NAMES, as_folder, as_parquet_of_bytes, pictures, table, write_folder
import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import hub, load, load_data
from neuralcollapse.experiments.data.columns import samples_of


def refused(dataset, **settings):
    with pytest.raises(InvalidInput) as error:
        load_data(TrainConfig(dataset=dataset, **{"ratio": 4, **settings}))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("bytes_in_memory", [2**30, 0])
@pytest.mark.parametrize("part", ["indices", "test_indices"])
def test_a_corrupt_image_is_named_wherever_it_is(tmp_path, cli, monkeypatch, part, bytes_in_memory):
    name = as_folder(tmp_path, *pictures())
    monkeypatch.setattr(load, "IN_MEMORY", bytes_in_memory)
    i = getattr(load_data(TrainConfig(dataset=name, ratio=4)), part)[3]
    file = sorted((tmp_path / "pictures").rglob("*.png"))[i]
    file.write_bytes(file.read_bytes()[:80])
    result = cli("train", "--dataset", name, "--ratio", 4, "--out", tmp_path / "run")
    assert (result.code, result.out) == (2, "")
    assert result.err == (f"neuralcollapse: cannot decode image '{file.parent.name}/{file.name}' of "
                          f"'{tmp_path / 'pictures'}': image file is truncated; mend or remove it\n")
    assert not (tmp_path / "run").exists()


def test_a_corrupt_image_in_a_table_is_named_by_its_row(tmp_path):
    images, labels = pictures()
    as_parquet_of_bytes(tmp_path, images, labels)
    files = [file.read_bytes() for file in sorted((tmp_path / "files").rglob("*.png"))]
    for broken, reason in ((b"no image", "its format is not known"), (None, "there is none")):
        pq.write_table(pa.table({"img": [*files[:7], broken, *files[8:]], "label": labels}), tmp_path / "b.parquet")
        assert refused(f"parquet:{tmp_path / 'b.parquet'}") == (
            f"cannot decode image 7 of '{tmp_path / 'b.parquet'}': {reason}; mend or remove it")


def write_image(folder, name, image):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)


def two_sizes(folder):
    write_image(folder / "ant", "a.png", np.zeros((8, 8), np.uint8))
    write_image(folder / "bee", "b.png", np.zeros((8, 9), np.uint8))


def sixteen_bits(folder):
    two_sizes(folder)
    write_image(folder / "ant", "a.png", np.zeros((8, 8), np.uint16))


def one_class(folder):
    write_image(folder / "ant", "a.png", np.zeros((8, 8), np.uint8))


def empty_class(folder):
    one_class(folder)
    (folder / "bee").mkdir()
    (folder / "bee" / "notes.txt").write_text("none here")


def another_class_in_test(folder):
    images, labels = pictures(each=2)
    write_folder(folder / "train", images[:4], labels[:4])
    write_folder(folder / "test", images, labels)


def parts(folder):
    images, labels = pictures(each=2)
    write_folder(folder / "train", images, labels)
    write_folder(folder / "val", images, labels)


FOLDERS = [
    (lambda folder: None, {}, "cannot read the data set 'PATH': No such file or directory"),
    (lambda folder: folder.write_text(""), {}, "cannot read the data set 'PATH': Not a directory"),
    (lambda folder: folder.mkdir(), {},
     "'PATH' must have a subfolder for each of at least two classes, got none"),
    (one_class, {}, "'PATH' must have a subfolder for each of at least two classes, got ant"),
    (empty_class, {}, "class folder 'PATH/bee' must hold images, got none"),
    (two_sizes, {}, "images of 'PATH' must have one size, got 8×8 for image 'ant/a.png' and 9×8 for image 'bee/b.png': "
                    "give data_options.size to resize the shorter side and cut out the centre"),
    (two_sizes, {"size": "big"}, "data option 'size' must be a whole number ≥ 1, got big"),
    (two_sizes, {"sise": 8}, "unknown option 'sise' of data set 'folder': did you mean 'size'? known: size, test"),
    (two_sizes, {"test": "val"}, "data option 'test' needs a folder with a subfolder 'train', got 'PATH' with ant, "
                                 "bee"),
    (sixteen_bits, {"size": 8}, "cannot decode image 'ant/a.png' of 'PATH': it has more than 8 bits a channel (mode "
                                "I;16); mend or remove it"),
    (another_class_in_test, {}, "'PATH/test' must have no other classes than the training part, got 'cat'"),
    (parts, {"test": "dev"}, "'PATH' must have the subfolder 'dev', got train, val"),
    (parts, {}, "the data set is too small for ratio 4: with 2 samples in the largest class the smallest would keep "
                "0.5; use a ratio of at most 2"),
]


@pytest.mark.parametrize(("write", "options", "message"), FOLDERS,
                         ids=lambda value: getattr(value, "__name__", str(value)[:40]))
def test_bad_folder(tmp_path, write, options, message):
    write(tmp_path / "x")
    assert refused(f"folder:{tmp_path / 'x'}", data_options=options) == message.replace("PATH", str(tmp_path / "x"))


NUMBERS = np.random.default_rng(0).normal(size=(40, 3))
LABELS = np.arange(40) % 4
LISTS = NUMBERS.tolist()
WITH_INF = np.where(np.arange(40)[:, None] == 11, np.inf, NUMBERS)

TABLES = [
    ({"a": LABELS, "label": LABELS}, {}, "'PATH' must have one column of images or lists of numbers, got none among a, "
                                         "label: name it by data_options.inputs"),
    ({"a": LISTS, "b": LISTS, "label": LABELS}, {}, "'PATH' must have one column of images or lists of numbers, got a, "
                                                    "b: name it by data_options.inputs"),
    ({"a": LISTS, "b": LABELS}, {}, "'PATH' must have one column of labels, got none among a, b: name it by "
                                    "data_options.labels"),
    ({"a": LISTS, "label": LABELS, "y": LABELS}, {}, "'PATH' must have one column of labels, got label, y: name it by "
                                                     "data_options.labels"),
    ({"a": LISTS, "label": LABELS}, {"inputs": "features"}, "'PATH' has no column 'features': known: a, label"),
    ({"a": LISTS, "label": LABELS}, {"labels": "labell"}, "'PATH' has no column 'labell': did you mean 'label'? known: "
                                                          "a, label"),
    ({"a": LISTS, "label": LABELS}, {"inputs": "label"}, "column 'label' of 'PATH' must hold images or lists of "
                                                         "numbers, got int64"),
    ({"a": LISTS, "label": LABELS}, {"labels": "a"}, "column 'a' of 'PATH' must hold single labels, got list<element: "
                                                     "double>"),
    ({"a": LISTS, "label": LABELS}, {"size": 8}, "data option 'size' needs images, got column 'a' of 'PATH'"),
    ({"a": LISTS, "label": LABELS}, {"labels": 3}, "data option 'labels' must be text, got 3"),
    ({"a": LISTS, "label": [None, *LABELS[1:].tolist()]}, {}, "column 'label' of 'PATH' must hold no nulls, got one in "
                                                              "row 0"),
    ({"a": LISTS, "label": LABELS + 0.5}, {}, "labels of 'PATH' must be whole numbers or text, got [0.5, 1.5, 2.5, "
                                              "3.5, 0.5]"),
    ({"a": LISTS, "label": LABELS * 0}, {}, "counts must name at least two classes, got 1 ([40])"),
    ({"a": [["x"]] * 40, "label": LABELS}, {}, "column 'a' of 'PATH' must hold numbers of shape (d,), (h, w) or "
                                               "(c, h, w), got list<element: string> of shape (1,) in row 0"),
    ({"a": [[]] * 40, "label": LABELS}, {}, "column 'a' of 'PATH' must hold numbers of shape (d,), (h, w) or "
                                            "(c, h, w), got list<element: null> of shape (0,) in row 0"),
    ({"a": WITH_INF.tolist(), "label": LABELS}, {}, "column 'a' of 'PATH' must hold finite numbers in every row, but "
                                                    "does not in row 11"),
    ({"a": [*LISTS[:4], [1.0, None, 2.0], *LISTS[5:]], "label": LABELS}, {},
     "column 'a' of 'PATH' must hold no nulls in every row, but does not in row 4"),
    ({"a": [*LISTS[:4], None, *LISTS[5:]], "label": LABELS}, {},
     "column 'a' of 'PATH' must hold lists of 3 in every row, but does not in row 4"),
]


@pytest.mark.parametrize(("columns", "options", "message"), TABLES, ids=lambda value: str(value)[-60:])
def test_bad_table(tmp_path, columns, options, message):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({name: pa.array(list(values)) for name, values in columns.items()}), path)
    said = refused(f"parquet:{path}", data_options=options, imbalance="natural")
    assert said.replace("<item:", "<element:") == message.replace("PATH", str(path))


def test_bad_files(tmp_path, capfd):
    path = tmp_path / "a.parquet"
    assert refused(f"parquet:{path}") == f"cannot read the data set '{path}': No such file or directory"
    assert refused(f"parquet:{tmp_path}") == (
        f"cannot read the data set '{tmp_path}': it is a folder, to be given as hf:PATH")
    path.write_bytes(b"PAR1 and then nothing")
    assert refused(f"parquet:{path}").startswith(f"'{path}' cannot be read as a Parquet table: ")
    assert capfd.readouterr() == ("", "")  # the library has not said it before
    assert refused(f"hf:{path}") == f"cannot read the data set '{path}': it is a file: give a table as parquet:PATH"
    assert refused(f"hf:{tmp_path}/no") == f"cannot read the data set '{tmp_path}/no': No such file or directory"
    (tmp_path / "empty").mkdir()
    assert refused(f"hf:{tmp_path / 'empty'}").startswith(
        f"'{tmp_path / 'empty'}' cannot be read as a data set of Hugging Face datasets: ")


def saved(folder, **tables):
    datasets.DatasetDict(tables).save_to_disk(folder / "saved")
    return f"hf:{folder / 'saved'}", str(folder / "saved")


def test_bad_splits(tmp_path):
    images, labels = pictures()
    whole = table(images, labels)
    unlabelled = datasets.Dataset.from_dict({"image": whole[:3]["image"], "label": [-1] * 3}, features=whole.features)
    name, path = saved(tmp_path, left=whole, right=whole)
    assert refused(name) == f"'{path}' has no split 'train': give data_options.train, one of left, right"
    assert refused(name, data_options={"train": "lefft"}) == (
        f"'{path}' has no split 'lefft': did you mean 'left'? known: left, right")
    assert refused(name, data_options={"train": "left", "test": "dev"}).startswith(f"'{path}' has no split 'dev': ")
    name, path = saved(tmp_path / "b", train=whole, test=unlabelled)
    assert refused(name) == (f"labels of '{path}' must be in 0 … 3, got -1 in row 80: give another split by "
                             "data_options.test, or none")
    name, path = saved(tmp_path / "c", train=whole, test=whole.select(range(30)))
    assert refused(name) == ("every class must be in both parts of the data set, but class cat has no sample in its "
                             "test part: data_options.test=none draws a test part instead")
    name, path = saved(tmp_path / "d", train=whole, test=whole.rename_column("label", "kind").map(
        lambda row: {"label": NAMES[row["kind"]]}).remove_columns("kind"))
    assert refused(name) == (f"the splits of '{path}' must have columns of the same kinds: give data_options.test=none "
                             "to use one of them")
    name, path = saved(tmp_path / "e", train=whole, test=whole.select([]))
    assert refused(name).startswith(f"'{path}' cannot be read as a data set of Hugging Face datasets: ")
    with pytest.raises(InvalidInput, match=r"^split 'train' of 'nowhere' must hold samples, got none$"):
        samples_of("nowhere", {"train": whole.select([])})


CLOSED = "needs the hub, which cannot be reached: download it elsewhere and give hf:PATH (save_to_disk) or folder:PATH"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "hf:someone/something",
                                  "hf:someone/something/config"])
def test_a_hub_that_is_switched_off(name):
    assert refused(name) == f"data set '{name}' {CLOSED}"


def test_a_hub_that_does_not_answer(monkeypatch):
    """An address that nothing listens at, as behind a closed network; and what was set before holds again."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "_SECONDS", 0.5)
    assert refused("cifar10") == f"data set 'cifar10' {CLOSED}"
    assert datasets.config.HF_HUB_OFFLINE is False


def test_options_where_there_are_none():
    assert refused("digits", data_options={"size": 8}) == "data set 'digits' takes no options, got 'size'"


def test_features_are_not_augmented(tmp_path):
    np.savez(tmp_path / "a.npz", X=NUMBERS, y=LABELS)
    assert refused(f"npz:{tmp_path / 'a.npz'}", augment="standard") == (
        "augment 'standard' needs images, got samples of shape (3,)")
