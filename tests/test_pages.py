"""README and docs keep their word: Python prints what they show, commands parse and run, links lead somewhere."""

from contextlib import redirect_stdout
import io
from pathlib import Path
import re
import sys
import warnings

import pytest
import typer

from neuralcollapse.cli import app, main
from pages import ROOT, SHELLS, agrees, blocks, commands

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
QUICK = ("predict", "cite", "advise", "list")


def name(page):
    return str(page.relative_to(ROOT))


def python_of(page):
    return [block for block in blocks(page) if block.language == "python"]


COMMANDS = [(page, words) for page in PAGES for words in commands(page)]
# A command whose output a page shows, or that is quick and reads no file of the reader's.
SHOWN = [(page, block) for page in PAGES for block in blocks(page) if block.language == "console"]
RUN = sorted({tuple(words) for _, words in COMMANDS
              if words[0] in QUICK and not any(word.startswith("runs/") or word.endswith(".npz") for word in words)})


def test_the_readme_shows_python_and_commands():
    assert len(python_of(README)) >= 3
    assert {words[0] for words in commands(README)} >= {"predict", "measure", "train", "report", "explore", "cite"}


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)], ids=name)
def test_python_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch):
    """The blocks of a page of docs go on from each other; those of the README stand alone."""
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "page"}
    for block in python_of(page):
        if page == README:
            space = {"__name__": "page"}
        printed = io.StringIO()
        with redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Lightning's own
            exec(compile("\n" * block.line + block.text, str(page), "exec"), space)
        if block.output is not None:
            assert agrees(block.output, printed.getvalue()), f"line {block.line} prints\n{printed.getvalue()}"


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda value: name(value) if isinstance(value, Path) else
                         " ".join(value))
def test_commands_parse(page, words):
    verb, *args = words
    context = typer.main.get_command(app).commands[verb].make_context(verb, list(args))
    assert context.info_name == verb


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Run a command as typed in an empty folder; what it printed."""
    def type_in(words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", ["neuralcollapse", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        output = capsys.readouterr()
        assert (stopped.value.code, output.err) == (0, "")
        return output.out

    return type_in


@pytest.mark.parametrize("words", RUN, ids=" ".join)
def test_quick_commands_run(typed, words):
    assert typed(words)
    if "--plot" in words:
        assert Path(words[words.index("--plot") + 1]).stat().st_size > 0


@pytest.mark.parametrize(("page", "block"), SHOWN, ids=lambda value: name(value) if isinstance(value, Path) else
                         f"line {value.line}")
def test_commands_print_what_is_shown(typed, page, block):
    """A console block: lines of `$ neuralcollapse …`, each above its output."""
    for one in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
        command, _, output = one.partition("\n")
        words = command.split()
        assert words[0] == "neuralcollapse"
        printed = typed(words[1:])
        assert agrees(output, printed), f"{command} prints\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_linked_files_are_there(page):
    text = page.read_text(encoding="utf-8")
    for target in set(re.findall(r"\]\(([^)#\s]+)", text)):
        assert "://" in target or (page.parent / target).exists(), target


def test_shells_are_known():
    known = {"python", "text", "yaml", "", "console", "bibtex", *SHELLS}
    assert {block.language for page in PAGES for block in blocks(page)} <= known
