"""`neuralcollapse explore`: what it says, how it ends, and that it serves."""

from __future__ import annotations

import os
from pathlib import Path
import re
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

pytest.importorskip("dash")


@pytest.mark.parametrize(("arguments", "message"), [
    (["nonsense"], "'nonsense' is not a folder of runs: there is no such folder"),
    (["file"], "'file' is not a folder of runs: it is a file"),
    (["--port", "70000"], "Invalid value for '--port': "),
    (["--host", "300.1.1.1"], "cannot listen on 300.1.1.1:8050: Name or service not known"),
])
def test_bad_input_is_one_line(arguments, message, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    result = cli("explore", "--no-browser", *arguments)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert result.err.startswith(f"neuralcollapse: {message}")


def test_a_port_in_use_is_one_line(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("explore", "--no-browser", "--port", str(port))
    assert (result.code, result.out) == (2, "")
    assert result.err == (f"neuralcollapse: cannot listen on 127.0.0.1:{port}: Address already in use; give another "
                          "port, or --port 0 for a free one\n")


def test_help_reads_well(cli):
    result = cli("explore", "--help")
    assert result.code == 0
    for words in ("Run folders, or folders of them", "any other than", "0 picks a free one", "Examples:"):
        assert words in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.out).split())


class Explorer:
    """The command in a process of its own."""

    def __init__(self, *arguments: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "neuralcollapse", "explore", "--no-browser", "--port", "0", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
        self.line = self.process.stdout.readline()

    @property
    def address(self) -> str:
        return re.fullmatch(r"Explorer: (http://\S+)   \(stop with Ctrl-C\)\n", self.line).group(1)

    def interrupted(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def start():
    started = []

    def begin(*arguments: str) -> Explorer:
        started.append(Explorer(*arguments))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def test_it_serves_the_page_of_runs_until_interrupted(start, tmp_path: Path):
    explorer = start(str(tmp_path))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/runs", explorer.address)
    with urlopen(explorer.address, timeout=60) as answer:
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert b"neuralcollapse explorer" in answer.read()
    assert explorer.interrupted() == (0, "", "")


def test_without_runs_it_opens_the_predictions(start):
    explorer = start()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", explorer.address)
    assert explorer.interrupted() == (0, "", "")


def test_a_host_that_others_reach_is_warned_of(start):
    explorer = start("--host", "0.0.0.0")
    code, out, err = explorer.interrupted()
    assert (code, out) == (0, "")
    assert err == "Warning: anyone who reaches this machine at 0.0.0.0 can see these runs.\n"
