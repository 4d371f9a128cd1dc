"""The atlas of a level that is always the same: pictures of it out of recordings, and where its walls blocked steps.

    python -m train atlas --latents DIR --geometry CKPT --out FILE

It keeps recorded frames one at a time: the next is the one that adds most to what the kept ones show from the recorded
poses (greedy maximum coverage, Nemhauser et al., 1978), judged as by episodic memory (`EpisodicMemory.choose`). Of each
stretch of wall it keeps one step that was blocked there. Held-out episodes are left out. Depth comes from the game if
it has it (`train/first_person/depth.py`), else from the frames' latents.

Legend: N pictures, K candidates, V views, Q frames that show some of a view, D directions of it, M stops.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import gymnasium
import numpy as np
import torch
from torch import Tensor

from data_collect.errors import UserError
from data_collect.guest.guest import Guest
from game_wm.deadline import NEVER, Deadline, left_out
from game_wm.memory.first_person.atlas import NAMES, Atlas
from game_wm.memory.first_person.camera import DIRECTIONS
from game_wm.memory.first_person.episodic import WAYS, EpisodicMemory, Places
from game_wm.memory.first_person.geometry import BEFORE, Geometry
from game_wm.memory.first_person.obstacles import SIDES, STOPPED, turned
from game_wm.memory.first_person.pose import relative
from train.data.frames import PooledFrames
from train.data.latents import LatentStore
from train.data.recordings import recordings_of
from train.data.spans import Span
from train.first_person.depth import known_disparity
from train.report.console import Task, say

CELL, HEADINGS = 0.5, 18  # one candidate for each cell (in sides of a place) and heading (to a turn)
# Views that the atlas should show: so many for each of its pictures, but no more in all.
VIEWS_A_PICTURE, VIEWS = 16, 6000
COMPARED = 768  # nearest candidates that are compared for each view
ACROSS, ALONG = 0.1, 0.25  # size of a stretch of wall, in sides of a place
PART = 64
SHOWN = 0.7  # of the time that is left, for comparing candidates; the rest chooses


def check_level(game: gymnasium.Env) -> None:
    """`UserError` where episodes have different maps; a game that gives no map passes."""
    maps = [game.reset(seed=seed)[1].get("map", ()) for seed in (0, 1)]
    if not np.array_equal(*maps):
        raise UserError("every episode of this game has another level: an atlas is of one that is always the same")


def candidates(store: LatentStore, spans: Sequence[Span], side: float, headings: int) -> list[Span]:
    """Of each cell and heading the single frame nearest to its middle."""
    best = dict[tuple[int, ...], tuple[float, Span]]()
    for span in spans:
        pose = np.array(store.read("pose", span), np.float64)
        at = np.concatenate((pose[:, :2] / side, pose[:, 2:] % math.tau * (headings / math.tau)), 1)
        place = np.floor(at)
        off = np.abs(at - place - 0.5).sum(1)
        order = np.lexsort((off, *place.T))
        for t in order[np.unique(place[order], axis=0, return_index=True)[1]]:
            key = tuple(place[t].astype(int).tolist())
            if key not in best or off[t] < best[key][0]:
                best[key] = float(off[t]), Span(span.episode, span.start + int(t), 1)
    return [best[key][1] for key in sorted(best)]


def most_shown(among_VQ: np.ndarray, shown_VQD: np.ndarray, count: int) -> list[int]:
    """Which frames to keep: one after another the one that adds most to what the best of those kept shows, summed over
    all directions of all views. `among`: the frames that show some of each view, and `shown`: how well, 0 to 1."""
    views, rows = among_VQ.shape
    order = np.argsort(among_VQ, axis=None, kind="stable")
    frames, starts = np.unique(among_VQ.flatten()[order], return_index=True)
    parts = dict(zip(frames.tolist(), np.split(order, starts[1:]), strict=True))
    shown, best = shown_VQD.reshape(views * rows, -1), np.zeros((views, shown_VQD.shape[2]), shown_VQD.dtype)

    def gain(frame: int) -> float:
        part = parts[frame]
        return float(np.maximum(shown[part] - best[part // rows], 0).sum())

    # Gains only shrink, so a frame that is still first after its gain was computed again is the best.
    heap = [(-gain(frame), frame) for frame in parts]
    heapq.heapify(heap)
    kept = list[int]()
    while heap and len(kept) < count:
        frame = heap[0][1]
        now = gain(frame)
        if len(heap) > 1 and now < -min(heap[1:3])[0]:
            heapq.heapreplace(heap, (-now, frame))
            continue
        if not now:  # the others add nothing
            break
        heapq.heappop(heap)
        kept.append(frame)
        part = parts[frame]
        np.maximum.at(best, part // rows, shown[part])
    return kept


@torch.no_grad()
def chosen(
    disparity_Khw: Tensor, poses_K3: Tensor, views_V3: Tensor, geometry: Geometry, count: int, deadline: Deadline
) -> list[int]:
    """The candidates of which an atlas is made."""
    config = geometry.config
    nothing = disparity_Khw.new_zeros(len(poses_K3), 3, 1, 1, dtype=torch.uint8)
    every = Atlas(nothing, disparity_Khw, poses_K3, poses_K3.new_zeros(0, 4))
    memory = EpisodicMemory.start(1, WAYS, (3, 1, 1), tuple(disparity_Khw.shape[1:]), "cpu")
    places = Places(config.place, config.headings, focal=geometry.focal, atlas=every)
    now, own = torch.zeros(1, dtype=torch.long), memory.times.numel()  # of its own frames there is none
    kept = deadline.part(SHOWN).fits(len(views_V3), lambda: memory.shown(places, views_V3[:1], now, 0, COMPARED), count)
    if kept < len(views_V3):
        say(left_out("atlas", kept, len(views_V3), "views"))
        views_V3 = views_V3[:kept]
    rows = len(views_V3), min(COMPARED, own + len(poses_K3))
    # Written in place: results that are kept one by one among passing pictures fragment the heap, to 19 GB.
    among, shown = np.zeros(rows, np.int32), np.zeros((*rows, DIRECTIONS), np.float16)
    with Task("atlas", len(views_V3), "views") as task:
        for i, view in enumerate(views_V3):
            which, _, how_well = memory.shown(places, view[None], now, 0, COMPARED)
            among[i], shown[i] = which[0] - own, how_well[0].half()
            task.advance(1)
    return most_shown(among, shown, count)


@torch.no_grad()
def stops(store: LatentStore, spans: Sequence[Span], geometry: Geometry) -> Tensor:
    """Where steps ended that something was in the way of, and what was lost of them (M, 4), in the level's axes."""
    place, found = geometry.config.place, list[Tensor]()
    for span in spans:
        poses, actions = store.tensors(span, "pose", "actions")
        if len(poses) < BEFORE + 2:
            continue
        steps, led = relative(poses[:-1], poses[1:])[None], actions[None, :-1]
        free = geometry.motion.unhindered(led[0], geometry.motion.pasts(steps, led)[0, :-1])
        lost = turned((steps[0] - free)[:, :2], -poses[:-1, 2])
        hindered = lost.norm(dim=1) > STOPPED * place
        hindered[:BEFORE] = False  # steps that go on from what is not known
        found.append(torch.cat((poses[1:, :2], lost), 1)[hindered])
    return thinned(torch.cat(found), place)


def thinned(stops_M4: Tensor, place: float) -> Tensor:
    """One of each stretch of wall."""
    x, y, lost_x, lost_y = stops_M4.unbind(1)
    side = ((torch.atan2(lost_y, lost_x) / math.tau + 0.5) * SIDES).round() % SIDES
    angle = (side / SIDES - 0.5) * math.tau
    gap, along = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    key = torch.stack((side, (gap / (ACROSS * place)).round(), (along / (ALONG * place)).round()), 1)
    _, first = np.unique(key.numpy(), axis=0, return_index=True)
    return stops_M4[torch.from_numpy(np.sort(first))]


@torch.no_grad()
def draw_atlas(
    store: LatentStore, spans: Sequence[Span], geometry: Geometry, pictures: int, deadline: Deadline = NEVER
) -> Atlas:
    """The atlas of these episodes. `UserError` when their recording has gone, or levels differ."""
    source = PooledFrames(recordings_of(store), 0, 0.0, 1)
    place, (_, height, width) = geometry.config.place, store.latent_shape
    rows = candidates(store, spans, CELL * place, HEADINGS)
    poses = np.concatenate([store.read("pose", row) for row in rows]).astype(np.float32)
    with Guest(store.game) as game:
        check_level(game)
        if hasattr(game, "depth"):
            disparity = known_disparity(game, place, height, width)(poses)
        else:
            latents = torch.from_numpy(np.concatenate([store.read("latents", row) for row in rows])).float()
            disparity = torch.cat([geometry.depth(part) for part in latents.split(PART)])
    every = np.concatenate([store.read("pose", span) for span in spans]).astype(np.float32)
    views = torch.from_numpy(
        every[np.random.default_rng(0).integers(len(every), size=min(VIEWS, VIEWS_A_PICTURE * pictures))]
    )
    kept = sorted(chosen(disparity, torch.from_numpy(poses), views, geometry, pictures, deadline))
    frames = torch.from_numpy(source.read(source.rows([store.as_recorded(rows[i]) for i in kept])))
    shown = frames.permute(0, 3, 1, 2).contiguous()
    return Atlas(shown, disparity[kept], torch.from_numpy(poses[kept]), stops(store, spans, geometry))


def make_atlas(
    geometry: Geometry, store: LatentStore, held_out: float, pictures: int, deadline: Deadline = NEVER
) -> dict[str, Tensor]:
    """The atlas of a level: its tensors. `UserError` without poses or inertia."""
    if not (geometry.motion.inertia and store.index["pose"]):
        raise UserError(
            "an atlas is drawn where poses are recorded, with a geometry trained with inertia and two_step_inertia"
        )
    atlas = draw_atlas(store, store.split(held_out, False), geometry, pictures, deadline)
    say(f"{len(atlas.poses)} pictures and {len(atlas.stops)} stretches of wall")
    return {name: getattr(atlas, name) for name in NAMES}
