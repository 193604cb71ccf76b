"""Fenced blocks of Markdown pages: Python, shell commands, and the output that follows either."""

from dataclasses import dataclass
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
import re
import shlex

ROOT = Path(__file__).parents[1]
SHELLS = ("bash", "console", "shell", "sh")
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text, and the `text` block right below it, its output."""

    line: int
    language: str
    text: str
    output: str | None = None


def blocks(page):
    """The fenced blocks of a page, outputs joined to what prints them."""
    content = page.read_text(encoding="utf-8")
    found = []
    end = 0
    for match in _FENCE.finditer(content):
        text = "".join(line.removeprefix(match[1]) for line in match[3].splitlines(keepends=True))
        alone = content[end:match.start()].strip()
        if match[2] == "text" and found and not alone and found[-1].output is None:
            found[-1] = Block(found[-1].line, found[-1].language, found[-1].text, text)
        else:
            found.append(Block(content.count("\n", 0, match.start(3)), match[2], text))
        end = match.end()
    return found


def commands(page):
    """The words of every `neuralcollapse` command of a page, up to a comment, a pipe or the next command."""
    for block in blocks(page):
        if block.language not in SHELLS:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.commenters, lexer.whitespace_split = "#", True
            words = list(lexer)
            if words[:1] == ["neuralcollapse"]:
                end = next((i for i, word in enumerate(words) if set(word) <= set("|&;<>()")), len(words))
                yield words[1:end]


def agrees(wanted, got):
    """Whether an output is what a page shows, where "..." stands for anything and spaces count once."""
    return OutputChecker().check_output(wanted, got, ELLIPSIS | NORMALIZE_WHITESPACE)
