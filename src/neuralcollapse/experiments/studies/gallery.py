"""The gallery of the studies: what each leaves of itself, and the page of all of them (`docs/gallery.md`).

`python -m neuralcollapse.experiments.studies.gallery > docs/gallery.md` writes it anew.
"""

from __future__ import annotations

from collections.abc import Callable
import inspect
from pathlib import Path

from neuralcollapse.experiments.studies import STUDIES  # of the package, which has registered them all
from neuralcollapse.experiments.studies.study import Setting
from neuralcollapse.registry import Entry


def gallery_section(entry: Entry[Callable[[Setting], str]], setting: Setting) -> str:
    """A study as a section of a page of Markdown: title, one paragraph, its picture and the command that drew it.

    Examples
    --------
    >>> print(gallery_section(STUDIES["rates"], Setting(Path("studies/rates"), ratios=(1.0, 30.0))).splitlines()[-1])
        neuralcollapse study rates --out studies/rates --ratios 1,30
    """
    title = entry.options["title"]
    paragraph = " ".join((inspect.getdoc(entry.function) or "").split())
    given = ["--quick"] if setting.quick else []
    given += [] if setting.ratios is None else [f"--ratios {','.join(f'{ratio:g}' for ratio in setting.ratios)}"]
    given += [] if setting.seeds is None else [f"--seeds {setting.seeds}"]
    given += [] if setting.seed == 0 else [f"--seed {setting.seed}"]
    given += [] if setting.steps is None else [f"--steps {setting.steps}"]
    command = " ".join(["neuralcollapse study", entry.name, f"--out studies/{entry.name}", *given])
    return (f"## {title}\n\n{paragraph} ({', '.join(entry.source)})\n\n"
            f"![{title}]({entry.name}.png)\n\n    {command}\n")


def gallery_page() -> str:
    """Every registered study, its picture as it is in the documentation, and a link to its findings."""
    sections = [gallery_section(entry, Setting(Path("anywhere"))).replace(
        f"]({entry.name}.png)", f"](pictures/{entry.name}.png)")
        + f"\n[What came out, beside what is claimed](findings/{entry.name}.md)\n" for entry in STUDIES]
    return ("# Gallery of the studies\n\nEach picture is one command. `--quick` takes minutes on two cores; data "
            "(Parquet), a PDF of the picture\nand a table lie beside it.\n\n" + "\n".join(sections))


if __name__ == "__main__":
    print(gallery_page(), end="")
