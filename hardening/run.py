"""Run every check of reliability and write docs/reliability.md from what they found.

With `--page` the page alone, from the results that are there. All of it takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
import json
import os
from pathlib import Path
import subprocess
import sys

from harness import RESULTS

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/reliability.md"
CHECKS = {"torture": 1_000, "fuzz": 100_000, "coverage": 100_000, "kills": 200, "soak": 10_000, "packages": 1}
HEADING = """# Reliability

What `make hardening` tried, and what came of it. A failure is a traceback, a hang (more than 20 s for one input), an
unpickled object, memory that grows without bound, something lost that had been written, a run that does not go on, a
number that is off, or an answer of the explorer that is an error.

"""
BESIDE = """
`coverage` needs atheris (`pip install atheris`), `packages` the interpreters that it is given; see the scripts in
`hardening/`.

Beside these, tests that run on every change: a kill between any two file operations of a run and a full disk,
read-only folders for every command that writes, folders that vanish while a run, a simulation or a sweep is at work,
two processes on one run folder (the second is refused), a worker of a sweep that is killed, a rank of a multi-process
measurement that dies (the others end with an error), truncated and hostile run folders in the explorer, and older and
newer formats of run folders.
"""


def page() -> str:
    """The page, from the results beside this file."""
    rows = ["| check | what was tried | how often | failures | figures |", "|---|---|---|---|---|"]
    for name in CHECKS:
        file = RESULTS / f"{name}.json"
        if file.is_file():
            found = json.loads(file.read_text())
            figures = "; ".join(f"{key} {value}" for key, value in found["figures"].items())
            rows.append(f"| {name} | {found['what']} | {found['count']:,} | {found['failures']} | {figures} |")
    day = datetime.now(UTC).date()
    return (f"{HEADING}{os.cpu_count()} cores, Python {sys.version.split()[0]}, {day}.\n\n" + "\n".join(rows) + "\n"
            + BESIDE)


def main() -> int:
    """How many checks failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--page", action="store_true", help="write the page from the results that are there")
    options.add_argument("--share", type=float, default=1.0, help="how much of each check, for a quick look")
    given = options.parse_args()
    failed = 0
    if not given.page:
        for name, many in CHECKS.items():
            script = [sys.executable, str(HERE / f"{name}.py"), "--many", str(max(2, round(many * given.share)))]
            failed += subprocess.run(script, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode != 0
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Written: {PAGE.relative_to(HERE.parent)}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
