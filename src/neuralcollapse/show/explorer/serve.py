"""`explore`: the explorer as a local web server that only this machine can reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import EADDRINUSE
import gc
from importlib.util import find_spec
import logging
from pathlib import Path
import socket
from typing import Any

from neuralcollapse.checks import InvalidInput

PORT = 8050


def explore(runs: Sequence[str | Path] = (), *, host: str = "127.0.0.1", port: int = PORT,
            ready: Callable[[str], None] | None = None) -> None:
    """Serve the explorer until interrupted.

    Parameters
    ----------
    runs : sequence of paths
        Run folders, also of runs that are still training; a folder that holds several gives all of them. Only these can
        be opened in the browser. Without any the explorer shows predictions.
    host : str
        The address to listen on; any other than 127.0.0.1 lets other machines in.
    port : int
        0 picks a free one.
    ready : callable, optional
        Given the address once it is open: that of the page of runs, or of predictions where there are no runs.

    Raises
    ------
    InvalidInput
        Dash is not installed, a path that is no folder, an address that cannot be listened on.
    """
    app = application(runs, host)
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    gc.collect()
    gc.freeze()  # libraries stay: to go through their objects again and again would make answers wait
    with _listening(host, port) as listener:
        server = make_server(host, port, app.server, threaded=True, fd=listener.fileno())
        shown = f"[{host}]" if ":" in host else host
        try:
            if ready is not None:
                ready(f"http://{shown}:{server.port}/{'runs' if runs else ''}")
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.server_close()


def _listening(host: str, port: int) -> socket.socket:
    """A socket of our own: werkzeug ends the program when it cannot have one."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while ")[0]
        taken = "; give another port, or --port 0 for a free one" if getattr(error, "errno", 0) == EADDRINUSE else ""
        raise InvalidInput(f"cannot listen on {host}:{port}: {reason}{taken}") from None


def application(runs: Sequence[str | Path] = (), host: str = "127.0.0.1") -> Any:
    """The Dash application, for a server of one's own (`application(runs).server` is its WSGI application)."""
    if find_spec("dash") is None:
        raise InvalidInput("the explorer needs Dash, which is not installed: pip install 'neuralcollapse[explore]'")
    from dash.exceptions import DependencyException

    from neuralcollapse.show.explorer.app import make_app
    from neuralcollapse.show.explorer.watch import RunShelf

    app = make_app(RunShelf.of(runs), host)
    app.server.register_error_handler(DependencyException, lambda error: ("no such file", 404))
    return app
