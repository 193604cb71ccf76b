"""The readers of fuzz.py driven by coverage (Google's atheris): inputs that reach new lines are kept and mutated on.

atheris is not among the project's requirements: pip install atheris. Without it this check says so and is left out.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile

from harness import RESULTS, Check

READERS = {"counts": 0.4, "configuration": 0.2, "sweep": 0.1, "labels": 0.1, "npz": 0.1, "safetensors": 0.1}


def drive(name: str, runs: int) -> None:
    """Drive one reader; atheris ends the process, with an error where it found one."""
    import atheris

    # The library alone: instrumenting torch and NumPy takes minutes and finds paths that are not ours.
    with atheris.instrument_imports(include=["neuralcollapse"]):
        from fuzz import Readers, feed, forbid_unpickling
    with tempfile.TemporaryDirectory() as folder:
        read, samples = Readers(Path(folder)).all[name]
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, sample in enumerate(samples):
            (corpus / str(number)).write_bytes(sample)
        forbid_unpickling()

        def test(content: bytes) -> None:
            wrong = feed(read, content)
            if wrong is not None:
                raise RuntimeError(f"{name}: {wrong} (input {content[:80]!r})")

        atheris.Setup([sys.argv[0], f"-runs={runs}", "-max_len=4096", "-verbosity=1", "-print_final_stats=1",
                       f"-artifact_prefix={RESULTS}/{name}-", str(corpus)], test)
        atheris.Fuzz()


def main(many: int) -> Check:
    """Each reader in a process of its own."""
    check = Check("coverage", "the same readers driven by coverage (atheris)")
    if find_spec("atheris") is None:
        print("coverage: atheris is not installed, left out")
        return check
    for name, share in READERS.items():
        runs = max(2, round(many * share))
        done = subprocess.run([sys.executable, __file__, "--reader", name, "--many", str(runs)], capture_output=True,
                              text=True, errors="replace", check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
        tried = re.findall(r"number_of_executed_units: (\d+)", done.stderr)
        reached = re.findall(r"cov: (\d+)", done.stderr)
        check.count += int(tried[-1]) if tried else 0
        check.figures[f"edges reached by {name}"] = int(reached[-1]) if reached else 0
        if done.returncode or not tried:
            check.fail(f"{name}: {(re.findall(r'RuntimeError: (.*)', done.stderr) or [done.stderr[-400:]])[0]}")
        print(f"  {name}: {check.count:,} so far, {len(check.failures)} failed", flush=True)
    check.close()
    return check


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--many", type=int, default=50_000)
    options.add_argument("--reader", choices=READERS, help="this one alone, in this process")
    given = options.parse_args()
    if given.reader:
        drive(given.reader, given.many)
    sys.exit(bool(main(given.many).failures))
