"""Where the page is found, and under what name: the listening socket, its address, its certificate, its QR code."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from contextlib import suppress
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

from data_collect.errors import UserError

PROBES = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}  # to find a route: addresses that are reserved for documentation


def listen(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: any that is free); `UserError` where there can be none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:  # the latter: a name that no address can have
        if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError(
                f"--host {host} is no address of this machine: give 127.0.0.1, or 0.0.0.0 for all"
            ) from None
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({os.strerror(error.errno or 0)})"
        raise UserError(f"port {port} of {host} {what}: name another one with --port") from None


def address(listening: socket.socket, host: str, token: str | None, secure: bool = False) -> str:
    """What to open in the browser; of all this machine's addresses, the one that other machines know."""
    name = own_address(host) or socket.gethostname() if host in PROBES else host
    name = f"[{name}]" if ":" in name else name
    query = f"?token={token}" if token else ""
    return f"http{'s' if secure else ''}://{name}:{listening.getsockname()[1]}/{query}"


def certificate(file: Path, key: Path | None) -> ssl.SSLContext:
    """What encrypts the lines; `UserError` where the certificate or its key (by default in the same file) is none."""

    def password() -> str:
        raise UserError(f"{key or file} is locked by a password: give a key without one (openssl pkey -in KEY)")

    for path in filter(None, (file, key)):
        if not path.is_file():
            option = "--certificate" if path is file else "--key"
            raise UserError(f"{option} {path} is no file: name a certificate and its key, both in PEM")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(file, key, password)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or error
        what = f"{key} is not the key of {file}" if reason == "KEY_VALUES_MISMATCH" else f"{file} cannot be used"
        raise UserError(f"{what} ({reason}): name a certificate and its key, both in PEM") from None
    return context


def qr_code(words: str, encoding: str) -> str:
    """A QR code for the terminal, to be read by a phone's camera; where half blocks cannot be printed, by colours."""
    import segno

    drawn = StringIO()
    segno.make_qr(words).terminal(drawn, border=2, compact=encoding.lower().replace("-", "") == "utf8")
    return drawn.getvalue()


def own_address(everywhere: str) -> str | None:
    """The address by which this machine is on its network, of the family of 0.0.0.0 or ::; None where it is on none."""
    family = socket.AF_INET6 if ":" in everywhere else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((PROBES[everywhere], 9))  # of a datagram socket: looks up the route, sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return None
    found = ipaddress.ip_address(own)
    return None if found.is_unspecified or found.is_loopback or found.is_link_local else own


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hostname(host: str) -> str:
    with suppress(ValueError):  # half a bracket is no name
        return urlsplit(f"//{host}").hostname or ""
    return ""


def netloc(origin: str) -> str:
    with suppress(ValueError):
        return urlsplit(origin).netloc
    return ""
