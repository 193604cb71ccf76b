"""`make demo` after installation: seconds in all, and what measuring costs beside training."""

from pathlib import Path
import subprocess
import sys
import tempfile
import time

from harness import machine
from neuralcollapse import Run


def main() -> None:
    """Print the line."""
    folder = Path(tempfile.mkdtemp()) / "demo"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "from neuralcollapse.cli import main; main()", "train", "--preset", "demo",
                    "--out", str(folder)], check=True, capture_output=True)
    total = time.perf_counter() - start
    last = Run.open(folder).history[-1]
    spent, distances = last["seconds"], last["measurement"]["distances"]
    print(machine())
    print(f"demo: {total:.0f} s in all; training {spent['train']:.1f} s, measuring {spent['measure']:.2f} s "
          f"({spent['measure'] / spent['train']:.1%})")
    for target, values in distances.items():
        print(f"  to {target:>10}: " + ", ".join(f"{part} {value:.4f}" for part, value in values.items()))


if __name__ == "__main__":
    main()
