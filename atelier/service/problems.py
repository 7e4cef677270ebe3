"""Errors as problem+json (RFC 9457): what went wrong in words for a person, never a stack trace."""

from __future__ import annotations

import http
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

MEDIA_TYPE = "application/problem+json"


class Detail(BaseModel):
    where: str = Field(description="The field, with dots between its parts.")
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "body.style: Input should be 'drawings', 'engraving', ...",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What went wrong here.")
    errors: list[Detail] | None = Field(None, description="Every bad field, where fields are bad.")


class Busy(HTTPException):
    """503: the client should come again in some seconds."""

    def __init__(self, detail: str, seconds: float = 1.0):
        super().__init__(503, detail, {"Retry-After": str(max(1, math.ceil(seconds)))})


def responses(*statuses: int) -> dict[int, dict]:
    """FastAPI's `responses=` for problems of these statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in statuses}


def problem(status: int, detail: str, headers=None, errors: list[dict] | None = None) -> Response:
    """The answer for an error."""
    title = http.HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if errors:
        content["errors"] = errors
    return JSONResponse(content, status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem, those of routing and validation included."""

    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the framework tells the methods of the first route with this path only
            headers["Allow"] = ", ".join(sorted(_methods(app, request)))
        return problem(error.status_code, error.detail, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Without the input itself: it may be huge, secret, or no valid text.
        errors = [
            {"where": ".".join(map(str, each["loc"]))[:200], "message": each["msg"][:500]} for each in error.errors()
        ][:20]
        detail = "; ".join(f"{each['where']}: {each['message']}" for each in errors[:3])
        return problem(422, detail.encode("utf-8", "replace").decode(), errors=_writable(errors))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        return problem(500, "something went wrong in the service; its log says what")


def _methods(app: FastAPI, request: Request) -> set[str]:
    matching = [route for route in app.routes if route.matches(request.scope)[0] == Match.PARTIAL]
    return {method for route in matching for method in getattr(route, "methods", None) or ()}


def _writable(errors: list[dict]) -> list[dict]:
    # A field's name is the client's, and half a surrogate pair in it cannot be written as UTF-8.
    return [{key: text.encode("utf-8", "replace").decode() for key, text in each.items()} for each in errors]
