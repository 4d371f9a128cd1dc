"""Places on the keyboard, called by what a US keyboard has there, whatever is printed on the key or typed with it.

    SCANCODES[26] == CODES["KeyW"] == "w"       # the key above S: Z on a French keyboard, Ц on a Russian one

Keys that type nothing (arrows, Shift, F5) have the same name everywhere and are no places.
"""

from __future__ import annotations

from collections.abc import Collection

# By the browser's name of the place (KeyboardEvent.code), and by USB's number of it, which is SDL's scancode.
_PUNCTUATION = {
    "-": ("Minus", 45), "=": ("Equal", 46), "[": ("BracketLeft", 47), "]": ("BracketRight", 48),
    "\\": ("Backslash", 49), ";": ("Semicolon", 51), "'": ("Quote", 52), "`": ("Backquote", 53), ",": ("Comma", 54),
    ".": ("Period", 55), "/": ("Slash", 56),
}  # fmt: skip
_LETTERS = {letter: (f"Key{letter.upper()}", 4 + i) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
_DIGITS = {digit: (f"Digit{digit}", 30 + i) for i, digit in enumerate("1234567890")}
_PLACES = {**_LETTERS, **_DIGITS, **_PUNCTUATION}
CODES = {code: key for key, (code, _) in _PLACES.items()}
SCANCODES = {scancode: key for key, (_, scancode) in _PLACES.items()}


def resolve(key: str, place: str | None, game: Collection[str], commands: Collection[str] = ()) -> str:
    """What a key stands for: itself, or the key that a US keyboard has in its `place` (of CODES or SCANCODES).

    Keys of the game come first, by place and then by name, so that W, A, S and D are the same four keys everywhere;
    then commands, by name and then by place.
    """
    order = ((place, game), (key, game), (key, commands), (place, commands))
    return next((name for name, known in order if name is not None and name in known), key)
