"""Any pygame program, unmodified, is a game: what it sees of time, chance and keys is ours, and plays again exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import EVENTS_FIRST, IN_A_FUNCTION, WAIT_FIRST, program

from data_collect import games
from data_collect.__main__ import main
from data_collect.dataset import Dataset

pytestmark = pytest.mark.slow


@contextmanager
def made(game: str, **options: Any) -> Iterator[Any]:
    env = games.make(game, **options)
    try:
        yield env
    finally:
        env.close()


def reds(env: Any, actions: Sequence[Any], seed: int = 1) -> list[int]:
    """The red of a corner of each frame: what `paint` was given."""
    frames = [env.reset(seed=seed)[0]]
    for action in actions:
        frame, _, terminated, truncated, _ = env.step(action)
        frames.append(frame)
        if terminated or truncated:
            break
    return [int(frame[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize("code", [EVENTS_FIRST, WAIT_FIRST, IN_A_FUNCTION])
def test_a_key_is_seen_in_the_next_frame(tmp_path: Path, code: str) -> None:
    with made(program(tmp_path, code)) as env:
        assert env.action_schema.names == ("left",) and env.action_schema.fps == 20
        held = [0, 1, 1, 0, 1, 0, 0, 1]
        assert reds(env, [np.array([each]) for each in held]) == [100] + [200 if each else 100 for each in held]


def test_several_rounds_of_the_loop_make_a_step(tmp_path: Path) -> None:
    code = """
count = 0
while True:
    for event in pygame.event.get(): pass
    count += 1
    paint(count)
    pygame.display.update(pygame.Rect(0, 0, 32, 48))
    pygame.display.update(pygame.Rect(32, 0, 32, 48))
    clock.tick(60)
"""
    with made(program(tmp_path, code)) as env:
        assert env.action_schema.fps == 15 and env.metadata["note"].startswith("64x48 → 80x64, 60 → 15 frames/s")
        assert np.diff(reds(env, [0] * 8)).tolist() == [4] * 8


def test_time_passes_by_waiting_alone(tmp_path: Path) -> None:
    """Each of these loops shows 10 pictures a second and counts tenths of seconds by a clock of its own."""
    for wait, told in (
        ("time.sleep(0.1)", "time.time() - begin"), ("pygame.time.wait(100)", "pygame.time.get_ticks() / 1000"),
        ("while time.monotonic() < begun + 0.1: pass", "time.perf_counter() - start"),
        ("seconds += clock.tick(10) / 1000", "seconds"),
        ("pygame.time.set_timer(9999, 100, 1)\n    while pygame.event.wait().type != 9999: pass",
         "pygame.time.get_ticks() / 1000"),
    ):  # fmt: skip
        code = f"""
begin, start, seconds = time.time(), time.perf_counter(), 0
while True:
    begun = time.monotonic()
    pygame.event.get(pygame.QUIT)
    paint(round(10 * ({told})))
    pygame.display.flip()
    {wait}
"""
        with made(f"{program(tmp_path, code)}?keys=none&skip=1") as env:
            assert np.diff(reds(env, [0] * 6)).tolist() == [1] * 6, wait


def test_a_program_that_waits_for_nothing_has_a_screen_of_60_pictures_a_second(tmp_path: Path) -> None:
    code = "while True:\n    paint(pygame.time.get_ticks() // 10)\n    pygame.display.flip()\n"
    with made(program(tmp_path, code)) as env:
        assert env.action_schema.fps == pytest.approx(15, abs=0.1)
        assert set(np.diff(reds(env, [0] * 10)[1:])) <= {6, 7}


def test_waiting_for_a_key_without_a_new_picture_goes_on(tmp_path: Path) -> None:
    code = """
paint(50); pygame.display.flip()
waiting = True
while waiting:
    {wait}
    for event in pygame.event.get():
        if event.type == pygame.KEYUP and event.key == pygame.K_SPACE: waiting = False
paint(90); pygame.display.flip()
event = pygame.event.wait()
while event.type != pygame.KEYDOWN: event = pygame.event.wait()
"""
    for wait in ("clock.tick(20)", "pass"):
        with made(program(tmp_path, code.replace("{wait}", wait)) + "?keys=space") as env:
            pressed = [np.array([each]) for each in (0, 0, 1, 0, 0, 0, 1, 0, 0)]
            assert reds(env, pressed) == [50, 50, 50, 50, 90, 90, 90, 90], wait


def test_chance_follows_from_the_seed(tmp_path: Path) -> None:
    code = """
import datetime, numpy, os, uuid
dice = random.Random()
random.seed()
drawn = [lambda: random.random(), dice.random, numpy.random.random, numpy.random.default_rng().random,
         lambda: os.urandom(1)[0] / 256, lambda: uuid.uuid4().int % 97 / 97, lambda: hash("a") % 97 / 97,
         lambda: int(time.time()) % 97 / 97, lambda: datetime.datetime.now().second / 97]
while True:
    for draw in drawn:
        paint(int(256 * draw()))
        pygame.display.flip()
        clock.tick(20)
"""
    with made(program(tmp_path, code)) as env:
        one, other = (reds(env, [0] * 27, seed) for seed in (1, 2))
        assert reds(env, [0] * 27, 1) == one != other
        same = [i for i in range(9) if one[i::9] == other[i::9]]
        assert same == [6]  # what a name's hash is does not depend on the seed


def test_recordings_are_verified(tmp_path: Path, capsys: Any) -> None:
    """By the commands, with an episode that ends by itself, and continued."""
    code = """
import helper, pathlib, subprocess
subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], timeout=60)
x = helper.start()
scores = pathlib.Path.home() / "scores.txt"
x += 10 * scores.exists()
scores.write_text("9")
sound = pygame.mixer.Sound(buffer=bytes(4000))
while x < 60:
    for event in pygame.event.get():
        if event.type == pygame.KEYDOWN and event.key in (pygame.K_ESCAPE, pygame.K_q):
            pygame.quit(); sys.exit()
    channel = sound.play()
    while channel.get_busy() or pygame.mixer.get_busy(): clock.tick(30)
    pressed = pygame.key.get_pressed()
    x += 2 * (pressed[pygame.K_RIGHT] or pressed[pygame.K_d]) - pressed[pygame.K_LEFT] + random.randint(0, 1)
    screen.fill((0, 0, 0))
    screen.fill((255, 255, 255), (max(0, x), 20, 8, 8))
    pygame.display.flip()
    clock.tick(30)
pygame.quit()
"""
    (tmp_path / "helper.py").write_text("def start(): return int(open('start.txt').read())\n")
    (tmp_path / "start.txt").write_text("5")
    folder, words = str(tmp_path / "recording"), ["record", "--game", program(tmp_path, code), "--player", "random"]
    assert main([*words, "--frames", "60", "--out", folder]) == 0
    assert main([*words, "--frames", "90", "--out", folder]) == 0
    dataset = Dataset(folder)
    assert dataset.game.endswith("?keys=right,d,left")  # q and escape end it
    assert dataset.card["frames"] == 90 and any(chunk.last for chunk in dataset.index)
    capsys.readouterr()
    assert main(["verify", folder, "--replay", "all"]) == 0
    assert "episodes replayed exactly" in capsys.readouterr().out
