"""The same labelled images in every form a data set can have, for the tests of all of them."""

import datasets
import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq

NAMES = ("ant", "bee", "cat", "dog")
EACH = 20


def pictures(seed=0, each=EACH, shape=(8, 8, 3)):
    """(4 · each, …) bytes whose class can be told, sorted by class, and labels."""
    labels = np.repeat(np.arange(len(NAMES)), each)
    noise = np.random.default_rng(seed).integers(0, 120, (labels.size, *shape))
    return (noise + 40 * labels.reshape(-1, *[1] * len(shape))).astype(np.uint8), labels


def write_folder(folder, images, labels):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / NAMES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / NAMES[label] / f"{i:03}.png")
    return folder


def table(images, labels):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    return datasets.Dataset.from_dict({"image": [Image.fromarray(image) for image in images],
                                       "label": labels.tolist()}, features=features)


def as_npz(folder, images, labels):
    np.savez(folder / "pictures.npz", X=images, y=labels, names=NAMES)
    return f"npz:{folder / 'pictures.npz'}"


def as_folder(folder, images, labels):
    return f"folder:{write_folder(folder / 'pictures', images, labels)}"


def as_saved_data_set(folder, images, labels):
    table(images, labels).save_to_disk(folder / "saved")
    return f"hf:{folder / 'saved'}"


def as_hub_layout(folder, images, labels):
    (folder / "hub").mkdir()
    table(images, labels).to_parquet(folder / "hub" / "train-00000-of-00001.parquet")
    return f"hf:{folder / 'hub'}"


def as_parquet_of_bytes(folder, images, labels):
    """Without the marks of Hugging Face: bytes and names."""
    write_folder(folder / "files", images, labels)
    files = sorted((folder / "files").rglob("*.png"))
    pq.write_table(pa.table({"img": [file.read_bytes() for file in files],
                             "label": [file.parent.name for file in files]}), folder / "bytes.parquet")
    return f"parquet:{folder / 'bytes.parquet'}"


def as_parquet_of_lists(folder, images, labels):
    kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
    pq.write_table(pa.table({"features": pa.array(images.tolist(), kind), "label": [NAMES[c] for c in labels]}),
                   folder / "lists.parquet", row_group_size=7)
    return f"parquet:{folder / 'lists.parquet'}"


FORMS = (as_npz, as_folder, as_saved_data_set, as_hub_layout, as_parquet_of_bytes, as_parquet_of_lists)
