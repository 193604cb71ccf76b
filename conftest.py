"""Settings shared by every test: checked signatures, a steady hypothesis, a plain terminal."""

from pathlib import Path
import sys

from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook
import pytest

sys.path.insert(0, str(Path(__file__).parent / "tests"))  # `references` and `typecheck` are imported by name
install_import_hook("neuralcollapse", "typecheck.checked")

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
