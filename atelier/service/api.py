"""The routes, and `create_app`, which puts everything together."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

import atelier
from atelier.config import Config
from atelier.seeds import STYLES, check_seed, seeds_from
from atelier.service import problems
from atelier.service.limits import API_POLICY, Limits, SecurityHeaders
from atelier.service.metrics import MeasureRequests
from atelier.service.problems import responses
from atelier.service.schemas import (
    EXAMPLE_ID,
    ArtworkPage,
    ArtworkRecord,
    Artworks,
    CaptionRecord,
    DetectionRecord,
    Health,
    Styles,
    Wish,
)
from atelier.service.settings import Settings
from atelier.service.store import ID_PATTERN
from atelier.service.uploads import NotAPicture, TooManyPixels
from atelier.service.workshop import Workshop
from atelier.studio import PROJECT, Studio

Id = Annotated[str, Path(pattern=ID_PATTERN, description="The artwork's id.", examples=[EXAMPLE_ID])]
PICTURE_BYTES = {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}


def create_app(
    studio: Studio | Callable[[], Studio] | None = None, settings: Settings | None = None, demo: bool = True
) -> FastAPI:
    """Atelier as an ASGI application, to run by itself or to mount in another one.

    The models load when it starts; where it is mounted and hears nothing of that (see docs/service.md for how it
    does), with the first request for work or for `/readyz`.

    Args:
        studio: the studio, or what opens it; by default the one of config.yaml.
        settings: by default those of the environment (`ATELIER_...`).
        demo: put the web demo at `/`; needs Gradio. Where an API key is asked for leave it out, since the page asks
            for none.

    Raises:
        OSError: the data folder cannot be written, or another process uses it.
        ConfigError: a setting in the environment is bad.
    """
    settings = settings or Settings.from_environment()
    workshop = Workshop(studio or (lambda: Studio.open(Config.from_yaml(PROJECT / "config.yaml"))), settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI):
        workshop.start()
        yield
        workshop.close()

    app = FastAPI(
        title="Atelier",
        version=atelier.__version__,
        summary="One seed in, one artwork out: a picture in a chosen medium, and the sentence that describes it.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their scripts from another server
        redoc_url=None,
        responses=responses(500),
        separate_input_output_schemas=False,
    )
    app.state.workshop, app.state.stopping = workshop, asyncio.Event()
    problems.install(app)
    _add_artworks(app, workshop)
    _add_operations(app, workshop)
    _complete_openapi(app, settings)
    policy = API_POLICY
    if demo:
        from atelier.service.demo import mount_demo, page_policy  # Gradio is slow to import, and may be missing

        mount_demo(app, workshop)
        policy = page_policy(settings.frame_ancestors)
    app.add_middleware(Limits, settings=settings, stopping=app.state.stopping)
    app.add_middleware(SecurityHeaders, page_policy=policy)
    app.add_middleware(MeasureRequests, metrics=workshop.metrics)
    return app


def _key_check(settings: Settings) -> list:
    """The dependencies of routes that ask for the API key: none if there is no key."""
    if settings.api_key is None:
        return []
    header = APIKeyHeader(name="X-API-Key", auto_error=False)

    # As a default, since an annotation of a local name would be lost on FastAPI.
    def check(given: str | None = Depends(header)) -> None:
        # Both as bytes of one encoding, compared in a time that tells nothing of the key.
        if given is None or not secrets.compare_digest(given.encode("latin-1", "replace"), settings.api_key.encode()):
            raise HTTPException(401, "the header X-API-Key is missing or wrong", {"WWW-Authenticate": "X-API-Key"})

    return [Depends(check)]


def _add_artworks(app: FastAPI, workshop: Workshop) -> None:
    """/v1: what clients come for."""
    settings, store = workshop.settings, workshop.store
    key = _key_check(settings)
    refused = (401,) if key else ()

    def record(request: Request, values: dict[str, Any]) -> dict[str, Any]:
        """A stored record as clients see it."""
        values = dict(values)
        identity, created = values.pop("id"), datetime.fromtimestamp(values.pop("created"), UTC)
        if "caption_error" in values:  # the reason may name files of ours; the log has it
            values["caption_error"] = "the captioner failed"
        url = f"{request.scope.get('root_path', '')}/v1/artworks/{identity}.png"
        return {"id": identity, "created": created, "image_url": url, **values}

    @app.post(
        "/v1/artworks",
        status_code=201,
        dependencies=key,
        response_model=Artworks,
        response_model_exclude_unset=True,
        responses=responses(400, 408, 413, 422, 503, *refused),
        tags=["artworks"],
    )
    async def make_artworks(request: Request, wish: Wish) -> dict[str, Any]:
        """Make artworks: paint, caption and keep them."""
        if wish.count > settings.max_count:
            raise _invalid(("body", "count"), f"at most {settings.max_count} artworks in a request")
        seeds = _seeds(wish.seed, wish.count)
        made = await workshop.make(seeds, wish.style, wish.caption_style, wish.image == "base64")
        return {"artworks": [record(request, each) for each in made]}

    if settings.listing:

        @app.get(
            "/v1/artworks",
            dependencies=key,
            response_model=ArtworkPage,
            response_model_exclude_unset=True,
            responses=responses(404, 422, *refused),
            tags=["artworks"],
        )
        def list_artworks(
            request: Request,
            limit: Annotated[int, Query(ge=1, le=100, description="At most so many.")] = 20,
            before: Annotated[
                str | None, Query(pattern=ID_PATTERN, description="Only older ones than this; a page's `next`.")
            ] = None,
        ) -> dict[str, Any]:
            """The artworks that are kept, the newest first."""
            found = store.latest(limit + 1, before)
            if found is None:
                raise HTTPException(404, "there is no artwork of the id in `before`")
            page = [record(request, each) for each in found[:limit]]
            return {"artworks": page, "next": page[-1]["id"] if len(found) > limit else None}

    # These two ask for no key: who knows an id was given it, and pages show pictures without headers.
    @app.get(
        "/v1/artworks/{id}.png",
        response_class=Response,
        responses={200: PICTURE_BYTES, **responses(404, 422)},
        tags=["artworks"],
    )
    def get_picture(id: Id) -> Response:
        """An artwork's picture as a PNG file."""
        png = store.picture(id)
        if png is None:
            raise HTTPException(404, "there is no artwork of this id, or no longer")
        # An id's bytes never change.
        return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"})

    @app.get(
        "/v1/artworks/{id}",
        response_model=ArtworkRecord,
        response_model_exclude_unset=True,
        responses=responses(404, 422),
        tags=["artworks"],
    )
    def get_artwork(request: Request, id: Id) -> dict[str, Any]:
        """An artwork's record."""
        values = store.record(id)
        if values is None:
            raise HTTPException(404, "there is no artwork of this id, or no longer")
        return record(request, values)

    @app.post(
        "/v1/captions",
        dependencies=key,
        response_model=CaptionRecord,
        responses=responses(400, 408, 413, 415, 422, 503, *refused),
        tags=["captions"],
    )
    async def caption_picture(picture: UploadFile) -> dict[str, Any]:
        """Say what an uploaded picture shows (JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF; its name does not matter)."""
        with _upload_problems():
            _, described = await workshop.describe(await picture.read())
        return described

    @app.post(
        "/v1/detections",
        dependencies=key,
        response_model=DetectionRecord,
        responses=responses(400, 408, 413, 415, 422, 503, *refused),
        tags=["detections"],
    )
    async def detect_picture(picture: UploadFile) -> dict[str, Any]:
        """Say whether a machine made an uploaded picture, or a hand (files as those of `/v1/captions`)."""
        with _upload_problems():
            _, detected = await workshop.detect(await picture.read())
        return detected

    @app.get("/v1/styles", response_model=Styles, dependencies=key, responses=responses(*refused), tags=["artworks"])
    async def list_styles() -> dict[str, Any]:
        """The media that there are."""
        return {"styles": STYLES}


@contextlib.contextmanager
def _upload_problems():
    """An upload that is no picture, or too large a one, becomes an answer that says so."""
    try:
        yield
    except NotAPicture as error:
        raise HTTPException(415, str(error)) from error
    except TooManyPixels as error:
        raise HTTPException(413, str(error)) from error


def _add_operations(app: FastAPI, workshop: Workshop) -> None:
    """What those who run the service look at."""

    @app.get("/healthz", tags=["operations"], response_model=Health)
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["operations"], response_model=Health, responses=responses(503))
    async def readiness() -> dict[str, str]:
        """The models are warm, and requests are taken."""
        workshop.start()  # mounted, it may hear of no start: then whoever waits for readiness must bring it about
        if not workshop.batcher.ready:
            raise problems.Busy("the models are not ready")
        return {"status": "ready"}

    @app.get(
        "/metrics",
        tags=["operations"],
        response_class=Response,
        dependencies=_key_check(workshop.settings),
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **responses(*((401,) if workshop.settings.api_key else ())),
        },
    )
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(workshop.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _seeds(first: int | str | None, count: int) -> list[int | str]:
    """The seeds of a wish: fresh ones, or the first and those that follow it."""
    try:
        return [check_seed(seed) for seed in seeds_from(first, count)]
    except ValueError as error:
        raise _invalid(("body", "seed"), str(error)) from error


def _invalid(where: tuple[str, ...], message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": where, "msg": message, "type": "value_error"}])


def _complete_openapi(app: FastAPI, settings: Settings) -> None:
    """Put into the OpenAPI document what no route says by itself: the schema of problems, this service's limits."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schema = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas["Problem"] = schema
        schemas["Wish"]["properties"]["count"]["maximum"] = settings.max_count
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document

    app.openapi = openapi
