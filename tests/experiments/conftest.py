"""Caches that a test can write to, and no hub to reach."""

import datasets
import pytest


@pytest.fixture(autouse=True)
def _caches_of_our_own(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    datasets.disable_progress_bars()
