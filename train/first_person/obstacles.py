"""Obstacles of a player with inertia, learnt from recorded poses and the surfaces around them.

    python -m train obstacles --latents DIR --geometry CKPT --out FILE

Motion (`train motion`) gives the free step, and depth the distance of surfaces. From a map of the surfaces that earlier
frames showed around the player, and one of the lines at which steps were blocked
(`game_wm/memory/first_person/obstacles.py`), a network learns what is left of the step. Half the maps are drawn from a
perturbed pose, so that the network learns to correct drift towards walls; drift along a wall stays, since a map says
nothing about it.

Legend: N steps, D directions, R rings of a map, S sides, G gaps of another, F frames of an episode, w columns of a
picture, A action vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from game_wm.deadline import NEVER, Deadline, left_out
from game_wm.memory.first_person import obstacles
from game_wm.memory.first_person.episodic import AROUND
from game_wm.memory.first_person.geometry import BEFORE, Geometry
from game_wm.memory.first_person.obstacles import DIRECTIONS, HEARD, UNIT, Obstacles, horizon, turned
from game_wm.memory.first_person.pose import relative
from game_wm.training import affordable, descend
from train.data.frames import mixed
from train.data.latents import LatentStore
from train.data.spans import Span
from train.report.console import Task, say
from train.spread import spread

BATCH, RATE, DECAY = 512, 2e-3, 0.05
REACHES = (32, 256, 10_000)  # frames back that a map may have seen; one is chosen at random
KEPT_SHARE = 0.15  # the least share of those frames that are in the map
PERTURBED = 0.06  # places: deviation of the perturbed poses
STEP_NOISE = 0.01  # places: deviation of the noise on the last step of a perturbed pose
DROPPED = 0.3  # in training: the largest share of directions without surfaces, and the share of maps without lines
WEIGHT_NOISE = 0.5  # in training: deviation of the logarithm of a factor on surfaces
NEARLY = 0.02  # places: as good as right
PART = 64
READING = 0.4  # of the time that there is, for the steps of recordings; the rest trains
MIRROR = torch.tensor([1.0, -1.0])


class Hindered(NamedTuple):
    """Maps of surfaces (N, D, R) and of lines (N, S, G) turned to the free step; its length (N,); the step before and
    its blocked motion (N, 2, 2); where the step ends (N, 2). All as seen along the step, in sides of a place. `exact`
    (N,): whether the map is from the recorded pose, not a perturbed one."""

    maps: Tensor
    lines: Tensor
    lengths: Tensor
    lasts: Tensor
    ends: Tensor
    exact: Tensor


@torch.no_grad()
def hindered_steps(store: LatentStore, spans: Sequence[Span], geometry: Geometry) -> Hindered | None:
    """All of these episodes; None where the player stands still."""
    place, found = geometry.config.place, list[tuple[Tensor, ...]]()
    for span in spans:
        chance = torch.Generator().manual_seed(span.episode)
        latents, actions, poses = store.tensors(span, "latents", "actions", "pose")
        shown = [horizon(geometry.depth(part), geometry.focal) for part in latents.split(PART)]
        atlas = geometry.atlas.without(poses) if geometry.atlas is not None else None
        if atlas is not None:
            shown.append(horizon(atlas.disparity, geometry.focal))
        points, weights = (torch.cat(x) for x in zip(*shown, strict=True))
        steps, actions = relative(poses[:-1], poses[1:])[None], actions[None, :-1]
        free = geometry.motion.unhindered(actions[0], geometry.motion.pasts(steps, actions)[0, :-1])
        free, ends = free[:, :2] / place, steps[0, :, :2] / place
        towards, lengths = torch.atan2(free[:, 1], free[:, 0]), free.norm(dim=1)
        last = turned(torch.stack((ends, ends - free), 1), steps[0, :, None, 2])
        last = F.pad(last[:-1], (0, 0, 0, 0, 1, 0))  # the step to each frame, in the player's axes there
        blocked = turned(last[:, 1], -poses[:-1, 2])
        blocked[:BEFORE] = 0  # the steps before these are unknown
        cameras_at, known_ends, known_blocked = poses, poses[:0, :2], blocked[:0]
        if atlas is not None:
            cameras_at = torch.cat((poses, atlas.poses))
            known_ends, known_blocked = atlas.stops[:, :2], atlas.stops[:, 2:] / place
        for t in (lengths > HEARD).nonzero()[:, 0].tolist():
            reach = REACHES[int(torch.randint(len(REACHES), (), generator=chance))]
            first = max(0, t - reach)
            shown_here = torch.rand(t + 1 - first, generator=chance)
            kept = shown_here < KEPT_SHARE + (1 - KEPT_SHARE) * torch.rand((), generator=chance)
            kept[-1] = True
            cameras = kept.nonzero()[:, 0] + first
            if atlas is not None:
                cameras = torch.cat((cameras, torch.arange(len(poses), len(points))))
            exact, start, aside, before = t % 2 == 0, poses[t].clone(), torch.zeros(2), last[t]
            if not exact:
                aside = PERTURBED * torch.randn(2, generator=chance)
                start[:2] += place * turned(aside, -start[2])
                before = before + STEP_NOISE * torch.randn(2, 2, generator=chance)
            away = relative(start, cameras_at[cameras])
            away = torch.cat((away[:, :2] / place, away[:, 2:]), 1)
            nearest = away[:, :2].norm(dim=1).topk(min(AROUND, len(away)), largest=False).indices
            seen = obstacles.seen_from(points[cameras[nearest]], away[nearest]).flatten(0, 1)
            known = obstacles.around(seen[None], weights[cameras[nearest]].flatten()[None], towards[t : t + 1])[0]
            gone = torch.cat((poses[first : t + 1, :2], known_ends)) - start[:2]
            blocks = torch.cat((blocked[first : t + 1], known_blocked))
            gone, blocks = turned(gone, start[2]) / place, turned(blocks, start[2])
            lines = obstacles.stopped(gone[None], blocks[None], towards[t : t + 1])[0]
            end = perturbed_end(free[t], ends[t], aside) if float((ends[t] - free[t]).norm()) > NEARLY else ends[t]
            along = turned(before, towards[t]), turned(end, towards[t])
            found.append((known.half(), lines.half(), lengths[t], *along, torch.tensor(exact)))
    if not found:
        return None
    return Hindered(*(torch.stack(x) for x in zip(*found, strict=True)))


def worker(latents: list[str], geometry: Geometry) -> Callable[[Span], list[np.ndarray]]:
    """The work of a process of `spread`: an episode's span -> its hindered steps."""
    store = LatentStore(latents)
    return lambda span: [x.numpy() for x in hindered_steps(store, [span], geometry) or ()]


def all_hindered_steps(
    store: LatentStore, spans: Sequence[Span], geometry: Geometry, deadline: Deadline = NEVER
) -> Hindered:
    """The same by one process a core: most of the work is not matrix products. Of as many episodes as end in time."""
    spans, about = [span for span in spans if span.frames >= BEFORE + 2], (store.folders, geometry)
    cores = torch.get_num_threads()
    kept = deadline.fits(len(spans), lambda: hindered_steps(store, spans[:1], geometry), together=cores)
    if kept < len(spans):
        say(left_out("obstacles", kept, len(spans), "episodes"))
        spans = [spans[i] for i in mixed(len(spans), kept)]
    with (
        spread("train.first_person.obstacles:worker", about, spans, cores) as results,
        Task("obstacles", sum(span.frames for span in spans), "frames") as task,
    ):
        found = list[list[np.ndarray]]()
        for span, steps in zip(spans, results, strict=True):
            found += [steps] if steps else []
            task.advance(span.frames)
    if not found:
        raise UserError(f"{store.directory}: in none of {len(spans)} episodes the player moves: record more")
    return Hindered(*(torch.from_numpy(np.concatenate(x)) for x in zip(*found, strict=True)))


def perturbed_end(free_2: Tensor, end_2: Tensor, aside_2: Tensor) -> Tensor:
    """Where a blocked step, whose free end is `free` and whose true end is `end`, ends from a start so far `aside`. The
    blocked motion points away from the obstacle: no step gets farther towards it."""
    blocked = end_2 - free_2
    away = blocked / blocked.norm()
    into = ((free_2 + aside_2 - end_2) * away).sum().clamp_max(0)
    return free_2 - into * away


def fit(network: Obstacles, learnt: Hindered, steps: int, deadline: Deadline = NEVER) -> None:
    """Train in place. Maps are mirrored, scaled and dropped in part."""
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    optimizer = torch.optim.AdamW(network.requires_grad_(True).parameters(), RATE, weight_decay=DECAY)

    def loss(i: int) -> Tensor:
        rows = torch.randint(len(learnt.lengths), (BATCH,), generator=generator)
        maps, lines, lengths, lasts, ends = (x[rows].float() for x in learnt[:5])
        if i % 2:
            maps, lines, lasts, ends = maps.flip(1), lines.flip(1), lasts * MIRROR, ends * MIRROR
        maps = maps * (rand(BATCH, DIRECTIONS, 1) >= DROPPED * rand(BATCH, 1, 1))
        maps = maps * (WEIGHT_NOISE * torch.randn(BATCH, 1, 1, generator=generator)).exp()
        lines = lines * (rand(BATCH, 1, 1) >= DROPPED)
        reached = network(maps, lines, lengths, lasts) + F.pad(lengths[:, None], (0, 1))
        return F.smooth_l1_loss(reached, ends, beta=NEARLY) / UNIT

    def tell(step: int, value: Tensor) -> None:
        if step % 1000 == 0:
            say(f"obstacles: step {step} of {steps}, loss {float(value):.4f}")

    steps = affordable("obstacles", steps, loss, deadline)
    rate: Callable[[int], float] = lambda i: RATE * min(1.0, (i + 1) / 50) * (1 - i / steps)  # noqa: E731
    descend("obstacles", optimizer, steps, loss, rate, after=tell)
    network.requires_grad_(False)


@torch.no_grad()
def off_by(network: Obstacles, held_out: Hindered) -> tuple[float, float, float]:
    """Mean distances in places, for maps from recorded poses: of blocked steps' ends from the free step's, of the same
    from the network's prediction, and of unblocked steps' from the prediction."""
    maps, lines, lengths, lasts, ends = (x[held_out.exact].float() for x in held_out[:5])
    usual = F.pad(lengths[:, None], (0, 1))
    parts = zip(*(x.split(BATCH) for x in (maps, lines, lengths, lasts)), strict=True)
    change = torch.cat([network(*part) for part in parts])
    change = change * (change.norm(dim=1, keepdim=True) > HEARD)
    before, after = ((x - ends).norm(dim=1) for x in (usual, usual + change))
    stopped = before > NEARLY
    return tuple(float(x.mean()) for x in (before[stopped], after[stopped], after[~stopped]))  # type: ignore[return-value]


def learn_obstacles(
    geometry: Geometry, store: LatentStore, held_out: float, steps: int, deadline: Deadline = NEVER
) -> dict[str, Tensor]:
    """What is in the way of players: its weights. `UserError` without poses or inertia."""
    if not (geometry.motion.inertia and store.index["pose"]):
        raise UserError(
            "obstacles are learnt where poses are recorded, for a geometry trained with inertia and two_step_inertia"
        )
    learnt, judged = (all_hindered_steps(store, store.split(held_out, held), geometry, deadline.part(part))
                      for held, part in ((False, READING), (True, READING / 4)))  # fmt: skip
    network = Obstacles()
    fit(network, learnt, steps, deadline)
    before, after, free = off_by(network, judged)
    say(
        f"held-out steps that something hindered end {before:.4f} places from where they would end without, "
        f"{after:.4f} from where they are now said to; the others {free:.4f}"
    )
    return network.state_dict()
