"""Action files: what was played is written, read and played again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

import windowed  # noqa: E402, F401  SDL draws on nothing
from fakes import ATARI, CAR, MAZE, fake  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from game_wm.dream.actions import ActionLog, read_actions  # noqa: E402
from game_wm.play import headless  # noqa: E402
from game_wm.play.session import Session  # noqa: E402


def test_what_began_in_the_real_game_is_left_out_of_an_action_file(capsys: pytest.CaptureFixture[str]) -> None:
    log = ActionLog(MAZE)
    for context, count in ((0, 3), (-1, 2), (1, 4)):
        log.begin(context, 0)
        log.add(np.ones((count, 4), np.int8))
    shown: list[np.ndarray] = []
    cost = headless.play(Session(fake()), 9, log, SimpleNamespace(write=shown.append))  # type: ignore[arg-type]
    assert cost["frames"] == len(shown) == 7 and [int(x[0, 0, 0]) for x in shown] == [0] * 3 + [10] * 4
    assert "2 actions are of dreams that began in the real game" in capsys.readouterr().err
    alone = ActionLog(MAZE)
    alone.begin(-1, 0)
    alone.add(np.ones((2, 4), np.int8))
    with pytest.raises(UserError, match="--replay"):
        headless.play(Session(fake()), 2, alone)


def test_a_log_plays_again_from_the_same_places(tmp_path: Path) -> None:
    checkpoint = fake(end=5)
    first = Session(checkpoint, seed=1)
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(12):
        if i == 3:
            first.scene.begin(first.dream.context + 1)
        if first.scene.ended:
            first.scene.begin(first.dream.context + 1)
        pictures.append(first.step(rng.integers(0, 2, 4)).picture)
    first.dream.log.save(tmp_path / "log.npz", first.checkpoint.name, first.scene.steps)
    log = read_actions(tmp_path / "log.npz", MAZE)
    assert log.episodes == {0: (1, 1), 3: (2, 1), 8: (3, 1)}

    again: list[np.ndarray] = []
    video = SimpleNamespace(write=again.append)
    headless.play(Session(checkpoint), 12, log, video)  # type: ignore[arg-type]
    assert np.array_equal(again, pictures)


def test_action_files_of_every_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(4, dtype=np.int64))
    (tmp_path / "a.json").write_text(json.dumps({"actions": [[0, 1, 0, 0], [1, 0, 0, 1]]}))
    (tmp_path / "b.json").write_text("[0, 3, 1]")
    np.savez(tmp_path / "c.npz", actions=np.array([[0.5, 0.25]]))
    assert read_actions(tmp_path / "a.npy", MAZE).actions.tolist() == np.eye(4).tolist()
    assert len(read_actions(tmp_path / "a.json", MAZE)) == 2
    assert read_actions(tmp_path / "b.json", ATARI).actions.tolist() == [[0], [3], [1]]
    assert read_actions(tmp_path / "c.npz", CAR).actions.tolist() == [[0.5, 0.25]]


def write_bad_action_files(folder: Path) -> list[Path]:
    np.save(folder / "shape.npy", np.zeros((5, 3)))
    np.save(folder / "values.npy", np.full((5, 4), 7))
    np.save(folder / "empty.npy", np.zeros((0, 4)))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(folder / "names.npz", something=np.zeros(4))
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 and then nothing")
    np.savez_compressed(folder / "bits.npz", actions=np.eye(4))
    content = bytearray((folder / "bits.npz").read_bytes())
    content[70:90] = b"\xff" * 20  # within what is compressed
    (folder / "bits.npz").write_bytes(content)
    for name, steps in (("terabytes", 10**12), ("overflow", 10**30)):
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (steps, 4)})
    (folder / "brackets.npy").write_bytes(b"\x93NUMPY\x01\x00\x08\x00((((((((")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "digits.json").write_text(f"[[1, 1, 1, {10**400}]]")
    for name, schema in (("schema", "{nope"), ("kind", '{"kind": "discrete"}'), ("nested", "[" * 100_000)):
        np.savez(folder / f"{name}.npz", actions=np.eye(4), schema=schema)
    (folder / "text.json").write_text("{not json")
    (folder / "ragged.json").write_text("[[0, 1], [1]]")
    (folder / "words.json").write_text('["left", "right"]')
    (folder / "actions.csv").write_text("0,1,0,0\n")
    log = ActionLog(ATARI)
    log.begin(0, 0)
    log.add(np.array([1]))
    log.save(folder / "other.npz", "pong", 1)
    return [*sorted(folder.iterdir()), folder / "missing.npy"]


def test_action_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    for path in write_bad_action_files(tmp_path):
        with pytest.raises(UserError) as error:
            read_actions(path, MAZE)
        assert path.name in str(error.value) and "\n" not in str(error.value)
        assert any(word in str(error.value) for word in ("forward", ".npz, .npy or .json"))


@pytest.mark.parametrize(
    ("start", "context", "seed"),
    [
        (["a"], [0], [0]), ([0.5], [0], [0]), ([np.nan], [0], [0]), ([-3], [0], [0]), ([6], [0], [0]),
        ([2, 1], [0, 0], [0, 0]), ([[0]], [0], [0]), (0, 0, 0), ([0, 1], [0], [0]),
        ([0], [0], [2**64 - 1]), ([0], [0], [-5]), ([0], [0], None),
    ],
)  # fmt: skip
def test_episodes_that_cannot_begin_so_are_refused(start: Any, context: Any, seed: Any, tmp_path: Path) -> None:
    columns = {"start": start, "context": context} | ({} if seed is None else {"seed": seed})
    np.savez(tmp_path / "mine.npz", actions=np.zeros((5, 4)), **columns)
    with pytest.raises(UserError, match=r"mine\.npz .*episodes begin .*leave out `start`"):
        read_actions(tmp_path / "mine.npz", MAZE)


def test_episodes_may_begin_anywhere_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", actions=np.zeros((5, 4)), start=[0, 5], context=[-1, 7], seed=[0, 2**62])
    assert read_actions(tmp_path / "a.npz", MAZE).episodes == {0: (-1, 0), 5: (7, 2**62)}
    np.savez(tmp_path / "a.npz", actions=np.zeros((5, 4)), seed=3)  # another program's file
    assert read_actions(tmp_path / "a.npz", MAZE).episodes == {}
