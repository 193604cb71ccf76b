"""Data sets of the Hugging Face hub by name, from its local cache where it holds them, and local copies of any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.experiments.data.samples import DATASETS, Samples

_SECONDS = 5.0  # that the hub has to answer in before only what is in the cache counts


@DATASETS.register("hf", argument="NAME", source="lhoest2021")
def hf(name: str, *, inputs: str | None = None, labels: str | None = None, size: int | None = None,
       train: str | None = None, test: str | None = None) -> Samples:
    """A data set of the Hugging Face hub, owner/name or owner/name/config; or a folder of `save_to_disk` or Parquet.

    Parameters
    ----------
    name : str
    inputs, labels : str, optional
        Columns; found by kind and name when left out.
    size : int, optional
        Side that images are brought to; without it all must have one size.
    train, test : str, optional
        Splits. Its own split test or validation is the test part; "none" draws one from the training part.

    Raises
    ------
    InvalidInput
        A data set that is not there, a hub that cannot be reached, or columns that cannot be used.
    """
    return _samples(f"hf:{name}", name, inputs, labels, size, train, test)


def _samples(given: str, name: str, inputs: str | None, labels: str | None, size: int | None = None,
             train: str | None = None, test: str | None = None) -> Samples:
    from neuralcollapse.experiments.data.columns import samples_of

    place = Path(name).expanduser()
    if place.is_dir():
        parts = _from_folder(place)
    elif place.exists() or name.startswith((".", "/", "~")):
        reason = "it is a file: give a table as parquet:PATH" if place.exists() else "No such file or directory"
        raise InvalidInput(f"cannot read the data set '{name}': {reason}")
    else:
        parts = _from_hub(given, name)
    return samples_of(name, parts, inputs, labels, size, train, test)


def _from_folder(place: Path) -> Mapping[str, Any]:
    import datasets

    from neuralcollapse.experiments.data.columns import quiet

    saved = (place / "state.json").is_file() or (place / "dataset_dict.json").is_file()
    try:
        with quiet():
            loaded = datasets.load_from_disk(str(place)) if saved else datasets.load_dataset(str(place))
    except (ValueError, OSError, TypeError, LookupError, datasets.exceptions.DatasetsError) as error:
        raise InvalidInput(f"'{place}' cannot be read as a data set of Hugging Face datasets: "
                           f"{shown(error.__cause__ or error, 120)}") from None
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}


def _from_hub(given: str, name: str) -> Mapping[str, Any]:
    import datasets

    owner_and_name, config = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:]) or None
    with _reachable_or_offline() as reachable:
        try:
            return datasets.load_dataset(owner_and_name, config)
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            if not reachable:
                raise InvalidInput(f"data set '{given}' needs the hub, which cannot be reached: download it elsewhere "
                                   "and give hf:PATH (save_to_disk) or folder:PATH") from None
            raise InvalidInput(f"data set '{given}' cannot be read from the hub: {shown(error, 160)}") from None


@contextmanager
def _reachable_or_offline() -> Iterator[bool]:
    """Whether the hub answers; where it does not, the library is told so, or it would try again and again."""
    import datasets
    from huggingface_hub import get_session

    offline = datasets.config.HF_HUB_OFFLINE
    reachable = False
    if not offline:
        try:
            get_session().head(datasets.config.HF_ENDPOINT, timeout=_SECONDS)
            reachable = True
        except Exception:  # of whichever HTTP library it uses
            pass
    try:
        datasets.config.HF_HUB_OFFLINE = not reachable
        yield reachable
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


@DATASETS.register("mnist", source="lecun1998", hub="ylecun/mnist")
def mnist() -> Samples:
    """MNIST: 60,000 + 10,000 handwritten digits, 28×28 pixels, from the hub."""
    return _samples("mnist", "ylecun/mnist", "image", "label")


@DATASETS.register("fashion-mnist", source="xiao2017", hub="zalando-datasets/fashion_mnist")
def fashion_mnist() -> Samples:
    """Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28×28 pixels, from the hub."""
    return _samples("fashion-mnist", "zalando-datasets/fashion_mnist", "image", "label")


@DATASETS.register("cifar10", source="krizhevsky2009", hub="uoft-cs/cifar10")
def cifar10() -> Samples:
    """CIFAR-10: 50,000 + 10,000 photographs of 10 things, 32×32 pixels, from the hub."""
    return _samples("cifar10", "uoft-cs/cifar10", "img", "label")


@DATASETS.register("cifar100", source="krizhevsky2009", hub="uoft-cs/cifar100")
def cifar100() -> Samples:
    """CIFAR-100: 50,000 + 10,000 photographs of 100 things, 32×32 pixels, from the hub."""
    return _samples("cifar100", "uoft-cs/cifar100", "img", "fine_label")
