"""An explorer to open in a browser (`browsing.py`): a server in this process, on a free port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import logging
from pathlib import Path
from threading import Thread

from neuralcollapse.show.explorer.serve import application


@contextmanager
def served(runs: Sequence[str | Path] = ()) -> Iterator[str]:
    """The address of an explorer of some runs, on a free port."""
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, application(runs).server, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
