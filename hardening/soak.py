"""The explorer under 10,000 requests while a run is written: every answer good, memory flat.

The explorer is a process of its own; requests come over HTTP from two threads, as a browser sends them: pages, scripts,
every callback of the page of predictions with changing controls, the page of runs while a run grows, and URLs that ask
for what is not theirs.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
import http.client
import json
from pathlib import Path
import random
import subprocess
import sys
import tempfile
from threading import Lock
from typing import Any

from harness import Check
from neuralcollapse.experiments import TrainConfig

MEGABYTES = 150  # growth after the first tenth of the requests
_MORE = ("", "&ridge=0.5", "&loss=ldt&delta=n^0.5", "&profile=long-tail", "&k=nan",
         "&profile=counts&counts=9,1,1", "&profile=counts&counts=1,<b>")
_PLAIN = ("/", "/runs", "/_dash-layout", "/_dash-dependencies")
_BAD = ("/../../etc/passwd", "/assets/../app.py", "/runs?run=/etc/passwd", "/?k=" + "9" * 500, "/%00", "/nothing")


class Client:
    """One connection to the explorer."""

    def __init__(self, port: int):
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and content."""
        content = None if body is None else json.dumps(body)
        self.connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def page_callback(dependencies: list[dict[str, Any]], path: str, search: str) -> dict[str, Any]:
    """The request that opens a page."""
    one = next(one for one in dependencies if "page.children" in one["output"])
    values = {"url.pathname": path, "url.search": search}

    def filled(parts: list[dict[str, str]]) -> list[dict[str, Any]]:
        return [part | {"value": values.get(f"{part['id']}.{part['property']}")} for part in parts]

    outputs = [dict(zip(("id", "property"), part.rsplit(".", 1), strict=True))
               for part in one["output"].strip(".").split("...")]
    return {"output": one["output"], "outputs": outputs if len(outputs) > 1 else outputs[0],
            "inputs": filled(one["inputs"]), "state": filled(one["state"]), "changedPropIds": ["url.pathname"]}


def resident(pid: int) -> float:
    """Megabytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


def main(many: int = 10_000, seed: int = 0) -> Check:
    """So many requests."""
    check = Check("soak", "requests to the explorer, in two threads, while a run is written")
    lock = Lock()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "growing"
        out.mkdir()
        settings = Path(folder) / "config.yaml"
        settings.write_text(TrainConfig(epochs=100_000, measure="every 20", n_max=40, threads=1, batch_size=None,
                                        model_options={"width": 16}).to_yaml())
        trainer = subprocess.Popen([sys.executable, "-m", "neuralcollapse", "train", "--config", str(settings), "--out",
                                    str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        explorer = subprocess.Popen([sys.executable, "-m", "neuralcollapse", "explore", str(out), "--no-browser",
                                     "--port", "0"], stdout=subprocess.PIPE, text=True)
        try:
            assert explorer.stdout is not None
            port = int(explorer.stdout.readline().split("127.0.0.1:")[1].split("/")[0])
            dependencies = json.loads(Client(port).ask("GET", "/_dash-dependencies")[1])
            sizes: list[float] = []

            def stream(share: int) -> None:
                client, own = Client(port), random.Random(seed + share)
                for _ in range(many // 2):
                    kind = own.random()
                    if kind < 0.5:
                        search = f"?k={own.randint(2, 120)}&ratio={own.choice((1, 10, 100))}{own.choice(_MORE)}"
                        status, body = client.ask("POST", "/_dash-update-component",
                                                  page_callback(dependencies, "/", search))
                        good = status in (200, 204)
                    elif kind < 0.8:
                        search = own.choice(("", "?run=growing", "?run=growing&epoch=20", "?run=../../etc", "?epoch=x"))
                        status, body = client.ask("POST", "/_dash-update-component",
                                                  page_callback(dependencies, "/runs", search))
                        good = status in (200, 204)
                    elif kind < 0.9:
                        status, body = client.ask("GET", own.choice(_PLAIN))
                        good = status == 200
                    else:
                        status, body = client.ask("GET", own.choice(_BAD).replace(" ", "%20"))
                        good = status < 500 and b"root:" not in body
                    with lock:
                        check.count += 1
                        if not good:
                            check.fail(f"status {status}: {body[:200]!r}")
                        if check.count % max(1, many // 50) == 0:
                            sizes.append(resident(explorer.pid))

            with ThreadPoolExecutor(2) as threads:
                list(threads.map(stream, range(2)))
            early, last = max(sizes[:max(1, len(sizes) // 10)]), max(sizes[-5:])
            history = out / "history.jsonl"
            lines = history.read_text().count("\n") if history.is_file() else 0
            if last - early > MEGABYTES:
                check.fail(f"memory grew from {early:.0f} to {last:.0f} MB")
            if lines < 3:
                check.fail(f"the run was hardly written: {lines} records")
            check.figures = {"memory after a tenth": f"{early:.0f} MB", "memory at the end": f"{last:.0f} MB",
                             "records written meanwhile": lines}
        finally:
            for process in (trainer, explorer):
                process.kill()
                process.wait()
    check.close()
    return check


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--many", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    sys.exit(bool(main(given.many, given.seed).failures))
