"""The page: one answer that needs no other, `page.html` with the style and the scripts beside it written into it.

A browser runs these scripts and no others: the header names their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from data_collect.places import CODES
from game_wm.play import keymap

if TYPE_CHECKING:
    from game_wm.checkpoint import Checkpoint

# Of the window's commands.
PAGE_COMMANDS = ("previous", "restart", "next", "pause", "rewind", "save", "hud", "full_screen", "quit")
FULL_MARK = "<!-- full -->"  # where page.html has room for the words of a full game
STYLE = "page.css"
SCRIPTS = tuple(f"{name}.js" for name in ("page", "line", "keys", "touch", "gamepad", "files", "gallery", "screen"))
COMMON = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}
HEADERS = {**COMMON, "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}  # of all that is no page


@cache
def page() -> tuple[str, dict[str, str]]:
    folder = resources.files("game_wm.play.web") / "page"
    text = (folder / "page.html").read_text("utf-8")
    hashes: dict[str, list[str]] = {"style": [], "script": []}
    for kind, name in (("style", STYLE), *(("script", name) for name in SCRIPTS)):
        content = f"\n{(folder / name).read_text('utf-8')}"
        text = text.replace(f"<!-- {name} -->", f"<{kind}>{content}</{kind}>")
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    policy = (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; style-src {' '.join(hashes['style'])}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, {**COMMON, "Content-Security-Policy": policy}


def full_page(words: str) -> str:
    """The same for a page without a place, with words for browsers without scripts."""
    return page()[0].replace(FULL_MARK, html.escape(words))


def gallery_page() -> str:
    """The same, which begins with what there is to choose from."""
    return page()[0].replace("<body>", '<body class="gallery choosing">')


def about(checkpoint: Checkpoint, commands: tuple[keymap.Command, ...]) -> dict[str, Any]:
    """What a page must know: the model's name, the size of a picture and the keys."""
    schema = checkpoint.schema
    height, width = checkpoint.contexts_frames.shape[2:4]
    keys = [{"keys": keys, "text": text} for keys, text in keymap.game_keys(schema)]
    ours = [command for command in commands if command.name in PAGE_COMMANDS]
    offered = [{"name": c.name, "text": c.text, "keys": keymap.keys_of(schema, c)} for c in ours]
    size = {"width": int(width), "height": int(height)}
    named = {"name": checkpoint.name, "axes": schema.kind == "box", "codes": CODES}
    return {**named, **size, "keys": keys, "commands": offered}
