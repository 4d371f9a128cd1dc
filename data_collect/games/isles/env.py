"""The built-in isles: a scrolling world seen from above, to be remembered (numpy only).

    python -m data_collect record --game isles --player explorer --frames 20000 --out data/isles
    python -m data_collect record --game "isles?size=40&crates=0" --player explorer --frames 20000 --out data/isles40

A 64x64 picture, 20 frames a second, in the middle of which the player walks: 49 such pictures of isles, and sea round
them. Buttons (any combination): left, right, up, down, run. A step is 2 pixels in each direction, running 4, without
inertia. Water and whatever stands there stop the player. A gem gives +1, is counted in the bar above and is gone for
good; with the last one the episode ends. A crate is pushed along and stays where it is left. Creatures do no harm.

Coordinates: x to the right, y downwards, in pixels of the world; `map[int(y), int(x)]` in tiles of 8 pixels.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from data_collect.games import MARKS
from data_collect.games.isles import ground, landmarks, sprites
from data_collect.games.isles.sprites import BAR, Sprite
from data_collect.games.isles.world import TILE, lay_out
from data_collect.games.maze import number
from data_collect.schema import ActionSchema

FPS = 20.0
BUTTONS = ("left", "right", "up", "down", "run")
KEYS = {
    "left": "left", "right": "right", "up": "up", "down": "down", "left shift": "run", "space": "run",
    "a": "left", "d": "right", "w": "up", "s": "down",
}  # fmt: skip
WALK, RUN = 2, 4  # pixels a frame
HALF = 3  # of the player's square, in pixels
REACH = 6  # pixels at which a gem is taken
GEM_TILE, CRATE_TILE = 2, 4  # of the map
MOVING, GEM_MARK, CRATE_MARK = -1, MARKS["taken"], MARKS["pushed"]  # of `info["surface"]`
Place = tuple[int, int]  # x, y


class Isles(gymnasium.Env[np.ndarray, np.ndarray]):
    """The isles as a gymnasium environment; observations are uint8 (height, width, 3).

    size: tiles per side, without the sea round them (32 to 200). items: how many gems (None: one for 24 tiles that can
    be walked on). crates, creatures: how many; of gems and crates no more than have room. width, height: the picture,
    in pixels. surface: put `info["surface"]`, int32 (height, width): the number of the world's pixel behind each pixel,
    or -1: the bar, the player or a creature, -2: a gem, -3: a crate. Raises UserError for a value that makes no sense.
    info: "pose" (x and y of the picture's middle below the bar, in pixels, and 0), "map_pose" the same in tiles, "map"
    uint8 (rows, columns): 0 free, 1 stops the player, 2 gem, 4 crate.
    """

    replayable = True  # seed and actions give the same frames again

    def __init__(
        self, *, size: int = 56, items: int | None = None, crates: int = 24, creatures: int = 24,
        surface: bool = False, width: int = 64, height: int = 64,
    ) -> None:  # fmt: skip
        self.size = int(number("isles: size", size, 32, 200))
        self.item_count = None if items is None else int(number("isles: items", items, 1, 10_000))
        self.crate_count = int(number("isles: crates", crates, 0, 1000))
        self.creature_count = int(number("isles: creatures", creatures, 0, 1000))
        self.width = int(number("isles: width", width, 16, 512))
        self.height = int(number("isles: height", height, 16, 512))
        self.with_surface = bool(surface)
        self.action_schema = ActionSchema("multibinary", BUTTONS, keys=dict(KEYS), fps=FPS)
        self.action_space = self.action_schema.space()
        self.observation_space = gymnasium.spaces.Box(0, 255, (self.height, self.width, 3), np.uint8)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}
        self.render_mode = "rgb_array"
        self.people = sprites.players()
        self.gem, self.crate = sprites.sprite(sprites.GEM), sprites.sprite(sprites.CRATE)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Build the world of this seed (None: the one after the last) and return its first frame and info."""
        super().reset(seed=seed)
        world_seed, self._seed = (int(n) for n in self.np_random.integers(2**63, size=2))
        rng = np.random.default_rng(world_seed)
        self.plan = plan = lay_out(self.size, -(-max(self.width, self.height) // (2 * TILE)), rng)
        self.world = ground.paint(plan, rng)
        self.hides = landmarks.put(self.world, plan, rng)
        self.numbers = np.arange(self.world[..., 0].size, dtype=np.int32).reshape(self.world.shape[:2])
        self._solid = plan.solid.tolist()
        self.x, self.y = (n * TILE + TILE // 2 for n in (plan.start[1], plan.start[0]))
        self.facing, self.stride = "down", 0
        self._furnish(rng)
        self._look()
        return self.frame, self._info()

    def _furnish(self, rng: np.random.Generator) -> None:
        """Lay out crates, gems and creatures."""
        plan = self.plan
        rows, columns = plan.land.shape
        shown = ~self.hides.reshape(rows, TILE, columns, TILE).any((1, 3))
        empty = plan.reached & shown
        empty[plan.start] = False
        roomy = empty & plan.land & ~plan.path  # free ground all round, so that a crate can go anywhere
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                roomy &= ~np.roll(plan.solid, (down, right), (0, 1))
        self.crates: list[Place] = []
        for row, column in rng.permutation(np.argwhere(roomy)).tolist():
            if len(self.crates) < self.crate_count and roomy[row, column]:
                self.crates.append((column * TILE, row * TILE))
                empty[row, column] = roomy[row - 3 : row + 4, column - 3 : column + 4] = False
        places = np.argwhere(empty & plan.land)
        count = round(plan.reached.sum() / 24) if self.item_count is None else self.item_count
        self.gems = places[rng.permutation(len(places))[:count], ::-1] * TILE + TILE // 2  # x, y of their middles
        self.items = len(self.gems)
        self._taken(0)
        places = np.argwhere(plan.reached)
        self.creatures = places[rng.integers(len(places), size=self.creature_count), ::-1] * TILE  # x, y, upper left
        self.ways = np.zeros_like(self.creatures)
        self.looks = [sprites.creature(rng) for _ in range(self.creature_count)]
        self._rng = np.random.default_rng(self._seed)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Do one frame: action is 5 zeros and ones (left, right, up, down, run)."""
        left, right, up, down, run = (int(button) for button in action)
        across, along = right - left, down - up
        if across or along:
            self.facing = ("left", "right")[across > 0] if across else ("up", "down")[along > 0]
        for _ in range(RUN if run else WALK):
            self._walk(across, 0)
            self._walk(0, along)
        self.stride = (self.x + self.y) // 8 % 2 + 1 if across or along else 0
        near = (np.abs(self.gems - (self.x, self.y)) < REACH).all(1)
        taken = int(near.sum())
        if taken:
            self.gems = self.gems[~near]
            self._taken(self.items - len(self.gems))
        self._stroll()
        self._look()
        return self.frame, float(taken), not len(self.gems), False, self._info()

    def _walk(self, across: int, along: int) -> None:
        """One pixel, unless something is in the way that cannot be pushed."""
        if not (across or along):
            return
        left, top, side = self.x - HALF + across, self.y - HALF + along, 2 * HALF
        if self._blocked(left, top, side):
            return
        met = self._meets(left, top, side)
        for i in met:
            x, y = self.crates[i][0] + across, self.crates[i][1] + along
            if self._blocked(x, y, TILE) or self._meets(x, y, TILE) != [i]:
                return
        for i in met:
            self.crates[i] = self.crates[i][0] + across, self.crates[i][1] + along
        self.x, self.y = self.x + across, self.y + along

    def _blocked(self, left: int, top: int, side: int) -> bool:
        """Whether a square of so many pixels touches a solid tile."""
        rows, columns = {top // TILE, (top + side - 1) // TILE}, {left // TILE, (left + side - 1) // TILE}
        return any(self._solid[row][column] for row in rows for column in columns)

    def _meets(self, left: int, top: int, side: int) -> list[int]:
        """The crates that a square touches."""
        return [i for i, (x, y) in enumerate(self.crates) if -side < left - x < TILE and -side < top - y < TILE]

    def _stroll(self) -> None:
        """Creatures go on, turn now and then, and where the way ends."""
        rng, count = self._rng, len(self.creatures)
        turns = rng.random(count) < 0.03
        ways = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])[rng.integers(5, size=count)]
        self.ways = np.where(turns[:, None], ways, self.ways)
        there = self.creatures + self.ways
        low, high = there // TILE, (there + TILE - 1) // TILE
        solid = self.plan.solid
        free = ~(solid[low[:, 1], low[:, 0]] | solid[low[:, 1], high[:, 0]])
        free &= ~(solid[high[:, 1], low[:, 0]] | solid[high[:, 1], high[:, 0]])
        self.creatures = np.where(free[:, None], there, self.creatures)
        self.ways = np.where(free[:, None], self.ways, -self.ways)

    def _taken(self, count: int) -> None:
        self.bar = sprites.bar(self.width, count, self.items)

    def _look(self) -> None:
        """Draw the frame, and number what it shows."""
        self.left, self.top = self.x - self.width // 2, self.y - (self.height - BAR) // 2
        here = np.s_[self.top : self.top + self.height - BAR, self.left : self.left + self.width]
        self.frame = np.concatenate((self.bar, self.world[here]))
        self.surface = np.full((self.height, self.width), MOVING, np.int32)
        self.surface[BAR:] = self.numbers[here]
        self._shown = ~self.hides[here]
        for x, y in self.gems[self._near(self.gems)].tolist():
            self._draw(self.gem, x - 3, y - 3, GEM_MARK)
        for x, y in self.crates:
            self._draw(self.crate, x, y, CRATE_MARK)
        for i in np.flatnonzero(self._near(self.creatures)).tolist():
            x, y = self.creatures[i].tolist()
            self._draw(self.looks[i], x, y, MOVING)
        self._draw(self.people[self.facing][self.stride], self.x - 4, self.y - 6, MOVING)

    def _near(self, places: np.ndarray) -> np.ndarray:
        """Which of these places (n, 2) may be in the picture."""
        near = np.abs(places - (self.x, self.y)) < (self.width // 2 + TILE, self.height // 2 + TILE)
        return np.logical_and(near[:, 0], near[:, 1])

    def _draw(self, sprite: Sprite, x: int, y: int, mark: int) -> None:
        """A sprite whose upper left pixel is at this place of the world."""
        left, top, (colours, cover) = x - self.left, y - self.top, sprite
        height, width = cover.shape
        if not (-height < top < self.height - BAR and -width < left < self.width):
            return
        part = np.s_[max(0, -top) : self.height - BAR - top, max(0, -left) : self.width - left]
        here = np.s_[max(0, top) : top + height, max(0, left) : left + width]
        shown = cover[part] & self._shown[here]
        self.frame[BAR:][here][shown] = colours[part][shown]
        self.surface[BAR:][here][shown] = mark

    def _info(self) -> dict[str, Any]:
        grid = self.plan.solid.astype(np.uint8)
        grid[self.gems[:, 1] // TILE, self.gems[:, 0] // TILE] = GEM_TILE
        for x, y in self.crates:
            grid[y // TILE : (y + TILE - 1) // TILE + 1, x // TILE : (x + TILE - 1) // TILE + 1] = CRATE_TILE
        info: dict[str, Any] = {
            "pose": (float(self.x), float(self.y), 0.0), "map_pose": (self.x / TILE, self.y / TILE, 0.0), "map": grid,
        }  # fmt: skip
        return info | ({"surface": self.surface} if self.with_surface else {})

    def render(self) -> np.ndarray:  # type: ignore[override]
        return self.frame
