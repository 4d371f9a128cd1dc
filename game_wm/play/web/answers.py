"""Answers to requests other than the page itself: who is refused, and a dream as a file."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from data_collect.errors import UserError
from game_wm.dream import saved
from game_wm.play.web.addresses import hostname, is_loopback, netloc
from game_wm.play.web.page import HEADERS

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from game_wm.dream.saved import SavedDream
    from game_wm.play.web.door import Connection

DOWNLOAD_BYTES = 1 << 18  # bytes of a saved dream on their way
DOWNLOAD_SECONDS = 300.0  # seconds for a saved dream to arrive


def refusal(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, text=f"{status}: {sentence}\n", headers=HEADERS)


def guard(token: str | None) -> Middleware:
    """What refuses visitors who lack the token, and pages of other sites that a visitor's browser has open."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = _refused(request, token) or await handler(request)
        except web.HTTPException as error:
            response = refusal(error.status, error.reason)
        except ConnectionError:  # the line broke meanwhile: no answer is read
            response = web.Response()
        if not response.prepared:
            response.force_close()  # one request a connection: their number is what the door counts
        return response

    return guarded


def _refused(request: web.Request, token: str | None) -> web.Response | None:
    if token is not None:
        if not secrets.compare_digest(request.query.get("token", "").encode(), token.encode()):
            return refusal(403, "the address needs the token that was printed where the player was started")
    elif not is_loopback(hostname(request.host)):
        return refusal(403, "this player answers on its own machine alone, as 127.0.0.1 or localhost")
    origin = request.headers.get("Origin")
    if origin is not None and netloc(origin) != request.host:
        return refusal(403, "this player answers its own page alone")
    return None


async def download(
    request: web.Request, connection: Connection, name: str, dream: Callable[[], Awaitable[SavedDream]]
) -> web.StreamResponse:
    """A dream of a checkpoint of this name as a file, which the window goes on with (`--load`)."""
    connection.keep()
    try:
        async with asyncio.timeout(DOWNLOAD_SECONDS):
            copy = await dream()
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "saved"
                await asyncio.to_thread(saved.save, file, copy)
                return await _send_file(request, file, f"{name}-{datetime.now():%Y%m%d-%H%M%S}{saved.SUFFIX}")
    except UserError as error:
        return refusal(507, str(error))
    except TimeoutError:
        connection.cut()
        raise ConnectionResetError("the download took too long") from None
    finally:
        connection.release()


async def _send_file(request: web.Request, file: Path, name: str) -> web.StreamResponse:
    disposition = f"attachment; filename*=UTF-8''{quote(name)}"
    response = web.StreamResponse(headers={**HEADERS, "Content-Disposition": disposition})
    response.content_length = file.stat().st_size
    response.force_close()
    await response.prepare(request)
    with file.open("rb") as opened:
        while part := await asyncio.to_thread(opened.read, DOWNLOAD_BYTES):
            await response.write(part)
    await response.write_eof()
    return response
