"""How large, how slow and how patient a request may be; and the headers that make browsers careful."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier.service.problems import problem
from atelier.service.settings import Settings

JSON_BYTES = 64 * 2**10
"""A request to make artworks is small."""


class Limits:
    """ASGI middleware: refuses bodies that are too large or too slow, and drops the work of clients that left.

    Args:
        app: the application inside.
        settings: the limits.
        stopping: when it is set, the pages' event streams (which else last as long as the page is open) end.
    """

    def __init__(self, app: ASGIApp, settings: Settings, stopping: asyncio.Event):
        self.app, self.settings, self.stopping = app, settings, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        ours = scope["path"].startswith(f"{scope.get('root_path', '')}/v1/")
        headers = Headers(scope=scope)
        is_json = ours and not headers.get("content-type", "").startswith("multipart/")
        limit = min(JSON_BYTES, self.settings.max_body_bytes) if is_json else self.settings.max_body_bytes
        too_large = HTTPException(413, f"the request has more than {limit} bytes", {"Connection": "close"})
        too_slow = HTTPException(408, "the request's body came too slowly", {"Connection": "close"})
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > limit:
            return await problem(413, too_large.detail, too_large.headers)(scope, receive, send)

        loop = asyncio.get_running_loop()
        until, arrived, whole = loop.time() + self.settings.body_seconds, 0, asyncio.Event()

        async def limited() -> Message:
            nonlocal arrived
            if whole.is_set():
                if ours:  # the watcher below waits for the end of the connection; nobody else may
                    await asyncio.Event().wait()
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), until - loop.time())
            except TimeoutError:
                raise too_slow from None
            arrived += len(message.get("body", b""))
            if arrived > limit:
                raise too_large
            if not message.get("more_body"):
                whole.set()
            return message

        begun = ended = False

        async def noting(message: Message) -> None:
            nonlocal begun, ended
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async def leaving() -> None:
            await whole.wait()
            while (await receive())["type"] != "http.disconnect":
                pass

        # Pages stream their events, and notice by themselves when a browser goes.
        work = asyncio.ensure_future(self.app(scope, limited, noting))
        end = asyncio.ensure_future(leaving() if ours else self.stopping.wait())
        try:
            await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            work.cancel()  # which takes a job out of the queue, if the models have not begun it
            await asyncio.wait({work})
            if begun and not ended:
                await send({"type": "http.response.body", "body": b""})
        finally:
            work.cancel()
            end.cancel()


API_POLICY = "default-src 'none'; frame-ancestors 'none'"


class SecurityHeaders:
    """ASGI middleware: tells browsers what pages of ours may load, and who may show them in a frame."""

    def __init__(self, app: ASGIApp, page_policy: str):
        self.app, self.page_policy = app, page_policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                page = headers.get("content-type", "").startswith("text/html")
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
                headers["Permissions-Policy"] = "geolocation=(), microphone=(), payment=(), usb=()"
                headers["Cross-Origin-Opener-Policy"] = "same-origin"
                headers["Content-Security-Policy"] = self.page_policy if page else API_POLICY
            await send(message)

        await self.app(scope, receive, adding if scope["type"] == "http" else send)
