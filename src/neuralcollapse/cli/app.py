"""The application that commands add themselves to, and how it prints and fails."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
import json
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from neuralcollapse.checks import InvalidInput, one_line

app = typer.Typer(
    help="Predict, measure and steer the geometry that deep classifiers collapse to, balanced or not.",
    rich_markup_mode="rich", pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with:  neuralcollapse predict --counts 10,10,1,1   ·   neuralcollapse train --out runs/first")

_PLAIN = "neuralcollapse.plain"
_SPELT = {"‖": "|", "λ": "lambda", "μ": "mu", "ρ": "rho", "δ": "delta", "Δ": "Delta", "ι": "iota", "ω": "omega",
          "τ": "tau", "γ": "gamma", "Σ": "sum", "√": "sqrt", "→": "->", "≥": ">=", "≤": "<=", "×": "x", "−": "-",
          "–": "-", "…": "...", "·": "-", "•": "*"}


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """In place of what an output cannot show, such as ‖μ‖ in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_SPELT.get(letter, "?") for letter in error.object[error.start:error.end]), error.end


codecs.register_error(_PLAIN, _spelt)

# Newer typer carries its own click: take the base of usage errors from whichever it uses.
_UsageProblem: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


def _print_version(asked: bool) -> bool:
    if asked:
        from neuralcollapse import __version__

        typer.echo(__version__)
        raise typer.Exit
    return asked


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.",
                                                callback=_print_version, is_eager=True)] = False) -> None:
    pass


@contextmanager
def in_words_of_options(words: Mapping[str, str]) -> Iterator[None]:
    """Around a command: its refusals name the options that were given, not the library's arguments.

    Parameters
    ----------
    words : mapping
        What the library says, to what the command line says in its place.
    """
    try:
        yield
    except InvalidInput as error:
        message = str(error)
        for argument, option in words.items():
            message = message.replace(argument, option)
        raise type(error)(message) from None


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON document; its numbers are finite or null."""
    typer.echo(json.dumps(document, allow_nan=False))


def main() -> None:
    """Run the command line; bad input ends with one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="neuralcollapse", standalone_mode=False)
    except InvalidInput as error:
        code = _complain(str(error))
    except _UsageProblem as error:
        code = _complain(_usage(error))
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except MemoryError as error:
        code = _complain(f"not enough memory: {error}", 1)
    except OSError as error:
        code = _complain(f"{error.strerror or error}: '{error.filename}'" if error.filename else str(error))
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> NoReturn:
    """Exit; as one of several processes without taking Python and the group down first.

    While they are, threads of a group whose other process is gone may come for the interpreter and are ended in the
    middle of C++: the process aborts in place of its exit code (seen now and then with gloo).
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _usage(error: Any) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    details = getattr(error.__cause__, "errors", None)  # newer typer leaves out what was given
    if details is not None:
        message = f"{message.split(', unable')[0]}, got {details()[0]['input']!r}"
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} (see {context.command_path} --help)"


def _complain(message: str, code: int = 2) -> int:
    print(f"neuralcollapse: {one_line(message)}", file=sys.stderr)
    return code
