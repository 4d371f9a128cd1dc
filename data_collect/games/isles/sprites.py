"""What moves over the isles, and the bar above them, as pixel pictures.

A sprite is (uint8 (h, w, 3), bool (h, w): where it covers). In the pictures letters name colours; a dot is transparent.
"""

from __future__ import annotations

import numpy as np

Sprite = tuple[np.ndarray, np.ndarray]
BAR = 8  # rows of the bar
BOARD, RIM, INK = (44, 38, 66), (24, 20, 38), (250, 244, 226)
PALETTE: dict[str, tuple[int, ...]] = {
    "k": (30, 24, 40), "h": (206, 58, 46), "H": (250, 122, 84), "s": (250, 214, 170), "t": (56, 92, 190),
    "T": (104, 150, 236), "b": (74, 50, 44), "w": (255, 255, 255), "p": (255, 40, 132), "P": (255, 150, 200),
    "q": (168, 10, 88), "o": (176, 116, 56), "O": (230, 172, 98), "n": (112, 70, 36),
}  # fmt: skip
GEM = "..kkk.. .kPPpk. kPwPppk kPPpppk .kppqk. ..kqk.. ...k..."
CRATE = "kkkkkkkk kOOOOOOk kOnOOnok kOOnnOok kOOnnOok kOnOOnok kOoooook kkkkkkkk"
CREATURE = "..kkkk.. .kcCCck. kcwccwck kckcckck kcccccck kdccccdk .kkkkkk."
FACES = {
    "down": "..kkkk.. .khHHhk. khhhhhhk kkskskkk .kssssk. .ktTTtk. kstTTtsk .kttttk.",
    "up": "..kkkk.. .khHHhk. khhhhhhk khhhhhhk .khhhhk. .ktTTtk. kstTTtsk .kttttk.",
    "right": "..kkkk.. .khHHhk. khhhhhhk .kkksksk ..kssssk ..ktTTk. ..ktsTk. ..ktttk.",
}
LEGS = {"down": ("..bk.b..", "..bk....", ".....b.."), "right": ("...kb...", "..b..bk.", "...bk...")}
LEGS["up"] = LEGS["down"]
# 0 to 9 and /, each of five rows of three bits
FONT = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717", "11244")


def sprite(text: str, colours: dict[str, tuple[int, ...]] = PALETTE) -> Sprite:
    """From rows of letters."""
    rows = text.split()
    cover = np.array([[letter != "." for letter in row] for row in rows])
    return np.array([[colours.get(letter, (0, 0, 0)) for letter in row] for row in rows], np.uint8), cover


def mirrored(given: Sprite) -> Sprite:
    return given[0][:, ::-1], given[1][:, ::-1]


def players() -> dict[str, list[Sprite]]:
    """By where the player looks: at rest, and the two steps of walking."""
    made = {way: [sprite(f"{FACES[way]} {legs}") for legs in LEGS[way]] for way in FACES}
    return made | {"left": [mirrored(one) for one in made["right"]]}


def creature(rng: np.random.Generator) -> Sprite:
    """One of any colour but the gems'."""
    body = np.array([rng.integers(40, 160), rng.integers(110, 250), rng.integers(90, 250)])
    shades = {name: tuple((body * part).clip(0, 255)) for name, part in (("c", 1.0), ("C", 1.3), ("d", 0.7))}
    return sprite(CREATURE, {**PALETTE, **shades})


def bar(width: int, taken: int, items: int) -> np.ndarray:
    """uint8 (BAR, width, 3): a gem, and how many of how many are taken."""
    board = np.empty((BAR, width, 3), np.uint8)
    board[:], board[-1] = BOARD, RIM
    gem, cover = sprite(GEM)
    shown = min(7, width)
    np.copyto(board[:7, :shown], gem[:, :shown], where=cover[:, :shown, None])
    left = 9
    for letter in f"{taken}/{items}":
        rows = FONT[10 if letter == "/" else int(letter)]
        lit = np.array([[int(row) >> 2 - i & 1 for i in range(3)] for row in rows], bool)
        part = board[1:6, left : left + 3]
        part[lit[:, : part.shape[1]]] = INK
        left += 4
    return board
