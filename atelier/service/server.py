"""`python -m atelier serve`: the application under uvicorn."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from pathlib import Path

import uvicorn

from atelier.config import Config
from atelier.service.settings import Settings
from atelier.studio import Studio

PAGE_GRACE = 3.0
"""Seconds that open pages keep their event streams after the signal to stop."""


class _Server(uvicorn.Server):
    """Says where it listens, and does not wait for browsers that have the page open."""

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for socket in server.sockets:
                host, port = socket.getsockname()[:2]
                host = f"[{host}]" if ":" in host else host
                print(f"Atelier listens on http://{host}:{port}", file=sys.stderr, flush=True)

    async def shutdown(self, sockets=None) -> None:
        asyncio.get_running_loop().call_later(PAGE_GRACE, self.config.app.state.stopping.set)
        await super().shutdown(sockets)


def serve(
    config: Path, host: str = "127.0.0.1", port: int = 8000, demo: bool | None = None, data: Path | None = None
) -> None:
    """Serve until a signal; what was accepted by then is finished.

    Args:
        config: a config.yaml; its model paths start at its folder.
        host, port: where to listen.
        demo: put the web demo at `/`; `None`: unless there is an API key, which the page would not ask for.
        data: the folder of the artworks, in place of `ATELIER_DATA`.

    Raises:
        ConfigError, PainterError: the configuration is bad, or its generator cannot be loaded.
        OSError: the address or the data folder is taken.
    """
    from atelier.service.api import create_app

    # Each of the models' threads keeps a core busy by itself. Where they share their operations among the cores, too,
    # they wait for each other: a sixth fewer artworks a second. TensorFlow reads it when it is imported.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # for batches, as `import_keras` says
    settings = Settings.from_environment(**({"data": data} if data else {}))
    demo = settings.api_key is None if demo is None else demo
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    print("Loading the models ...", file=sys.stderr, flush=True)
    # Here and not in the models' thread, so that what is wrong is one line and an exit code.
    studio = Studio.open(Config.from_yaml(config), config.resolve().parent)
    app = create_app(studio, settings, demo)
    options = {
        "log_level": "warning",
        "server_header": False,
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": int(settings.work_seconds) + 5,  # longer than anything accepted takes
        "limit_concurrency": 1000,
        "h11_max_incomplete_event_size": 32 * 2**10,
    }
    server = _Server(uvicorn.Config(app, host, port, **options))
    # What TensorFlow and Keras keep for ever need not be looked through for garbage: a third of a second, each time, in
    # which nobody is served.
    gc.freeze()
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to say that it could not listen; its log says why
        raise OSError(f"cannot listen on {host}:{port}: the address is taken, or none of this machine's") from error
