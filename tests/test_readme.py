"""The README keeps its word: Python blocks run, command lines parse (and run where they are quick), files are there."""

from pathlib import Path
import re
import shlex
import sys

import pytest
import typer

from neuralcollapse.cli import app, main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = ("predict", "cite")


def blocks(*languages):
    """(line number, content) of each fenced block in one of the languages."""
    return [(TEXT.count("\n", 0, match.start(2)), match[2])
            for match in re.finditer(r"^```(\w+)\n(.*?)^```$", TEXT, re.M | re.S) if match[1] in languages]


def commands():
    """The words of every `neuralcollapse` command in a shell block, up to a comment, a pipe or the next command."""
    for _, block in blocks("bash", "console", "shell", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.commenters, lexer.whitespace_split = "#", True
            words = list(lexer)
            if words[:1] == ["neuralcollapse"]:
                end = next((i for i, word in enumerate(words) if set(word) <= set("|&;<>()")), len(words))
                yield words[1:end]


PYTHON = blocks("python")
COMMANDS = list(commands())


def test_the_readme_shows_python_and_commands():
    assert len(PYTHON) >= 3
    assert {words[0] for words in COMMANDS} >= {"predict", "measure", "train", "report", "cite"}


@pytest.mark.parametrize("block", [block for _, block in PYTHON], ids=[f"line {line}" for line, _ in PYTHON])
def test_python_blocks_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # It fails by raising: a block has no result of its own.
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_parse(words):
    name, *args = words
    context = typer.main.get_command(app).commands[name].make_context(name, list(args))
    assert context.info_name == name


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] in QUICK], ids=" ".join)
def test_quick_commands_run(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["neuralcollapse", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    output = capsys.readouterr()
    assert (stopped.value.code, output.err) == (0, "")
    assert output.out
    if "--plot" in words:
        assert Path(words[words.index("--plot") + 1]).stat().st_size > 0


@pytest.mark.parametrize("target", sorted({link for link in re.findall(r"\]\(([^)#\s]+)", TEXT) if "://" not in link}))
def test_linked_files_are_there(target):
    assert (ROOT / target).exists()
