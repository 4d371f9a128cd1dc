"""Keeps out of standard error what visitors cause, and repetitions of one fault of ours.

    with quiet(): ...

Without it aiohttp and asyncio print a traceback for every request that is none and every line that breaks.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp.http_exceptions import HttpProcessingError

LOGGERS = ("asyncio", "aiohttp.server", "aiohttp.web", "aiohttp.websocket", "aiohttp.internal")
VISITORS = (HttpProcessingError, ConnectionError, TimeoutError, ssl.SSLError)
AGAIN = 60.0  # seconds until the same fault is printed once more


class Filter(logging.Filter):
    """Lets errors pass that are this program's own, each place in the code once in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno < logging.ERROR or isinstance(error, VISITORS):
            return False
        where = record.pathname, record.lineno
        if error is not None and (trace := error.__traceback__) is not None:
            while trace.tb_next is not None:
                trace = trace.tb_next
            where = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        now = time.monotonic()
        if now - self._said.get(where, -AGAIN) < AGAIN:
            return False
        self._said[where] = now
        return True


@contextmanager
def quiet() -> Iterator[None]:
    spared = Filter()
    for name in LOGGERS:
        logging.getLogger(name).addFilter(spared)
    try:
        yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(spared)
