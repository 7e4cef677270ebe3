"""Atelier behind a URL: a REST API, and the web demo on the same address.

    from atelier.service import create_app
    app = create_app()        # an ASGI application: uvicorn module:app

| file | its one idea |
|---|---|
| `settings` | what whoever runs it may decide |
| `api` | the routes, and `create_app` |
| `schemas` | what goes in and out, with examples |
| `workshop` | the models and the store behind the routes |
| `batcher` | many requests, few batches |
| `store` | artworks on disk |
| `uploads` | a picture from a stranger |
| `limits` | how much and how long a request may be, and the security headers |
| `problems` | errors as problem+json |
| `metrics` | what Prometheus reads |
| `demo`, `pages` | the page in the browser |
| `server` | `python -m atelier serve` |
"""

from atelier.service.api import create_app
from atelier.service.settings import Settings

__all__ = ["Settings", "create_app"]
