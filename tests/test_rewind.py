"""Time in the player: rewinding, saving, loading and branching give the same bits again, and bad files a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import tiny_checkpoint  # noqa: E402

from data_collect.errors import UserError, main_guard  # noqa: E402
from game_wm.acceleration import prepare  # noqa: E402
from game_wm.checkpoint import load  # noqa: E402
from game_wm.dream import saved  # noqa: E402
from game_wm.dream.rewind import Undo  # noqa: E402
from game_wm.evaluation.metrics import psnr  # noqa: E402
from game_wm.play import app, headless  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.state import WorldState  # noqa: E402

pytestmark = pytest.mark.slow


KINDS = {"working": {}, "episodic": {"recall": True}, "scroll": {"scroll": True}, "turning": {"turning": True}}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", endless=True, **request.param)


def actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (count, 4))


def play(session: Session, what: np.ndarray) -> list[np.ndarray]:
    return [session.step(action).picture for action in what]


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal in every bit."""
    a, b = one.to_dict(), other.to_dict()
    return a.keys() == b.keys() and all(
        torch.equal(a[name].contiguous().view(torch.uint8), b[name].contiguous().view(torch.uint8)) for name in a
    )


# --- rewinding --------------------------------------------------------------------------------------------------


def test_rewinding_gives_every_bit_back(path: Path) -> None:
    session = Session(load(path))
    start = session.dream.state.clone()
    play(session, actions(12))
    middle, picture, score = session.dream.state.clone(), session.now.picture, session.now.score
    pictures = play(session, actions(40, 1))
    for _ in range(40):
        assert session.rewind()
    assert same(session.dream.state, middle) and (session.now.frames, session.now.score) == (12, score)
    assert np.array_equal(session.now.picture, picture) and len(session.dream.log) == 12
    again = play(session, actions(40, 1))  # on from there, the same way
    assert np.array_equal(again, pictures)
    while session.rewind():
        pass
    assert same(session.dream.state, start) and session.now.frames == len(session.dream.log) == 0
    assert np.array_equal(session.now.picture, session.checkpoint.contexts_frames[0, -1])


def test_a_rewound_moment_branches(path: Path) -> None:
    session = Session(load(path))
    first = play(session, actions(6))
    for _ in range(3):
        session.rewind()
    other = play(session, actions(3, seed=9))
    assert not np.array_equal(other, first[3:])
    fresh = Session(load(path))
    assert np.array_equal(play(fresh, np.concatenate([actions(6)[:3], actions(3, seed=9)])), first[:3] + other)
    assert session.dream.log.actions.tolist() == fresh.dream.log.actions.tolist()


def test_what_can_be_rewound_is_bounded_by_bytes(path: Path) -> None:
    session = Session(load(path))
    play(session, actions(1))
    frame = session.dream.undo.nbytes
    session.scene.begin()
    session.dream.undo = Undo(session.dream.state, limit=10 * frame)
    states = []
    for action in actions(30):
        states.append(session.dream.state.clone())
        session.step(action)
        assert session.dream.undo.nbytes <= 10 * frame
    kept = len(session.dream.undo)
    assert 3 < kept < 30
    while session.rewind():
        pass
    assert session.now.frames == 30 - kept and same(session.dream.state, states[30 - kept])


# --- saved dreams -----------------------------------------------------------------------------------------------


def test_a_saved_dream_goes_on_and_branches(path: Path, tmp_path: Path) -> None:
    session = Session(load(path), context=1, seed=4)
    play(session, actions(10))
    saved.save(tmp_path / "walk.dream", session.snapshot())
    went = play(session, actions(5, 1))

    again = Session(load(path), beginning=saved.load(tmp_path / "walk.dream", load(path)))
    assert (again.now.frames, again.dream.context, again.dream.seed, len(again.dream.log)) == (10, 1, 4, 10)
    assert again.dream.log.episodes == {0: (1, 4)}
    assert np.array_equal(play(again, actions(5, 1)), went)
    again.restore(saved.load(tmp_path / "walk.dream", again.checkpoint))
    assert not np.array_equal(play(again, actions(5, 2)), went)
    again.reset()
    assert again.now.frames == 10


def test_a_saved_dream_replays_exactly(path: Path, tmp_path: Path) -> None:
    session = Session(load(path), seed=2)
    play(session, actions(5))
    session.scene.steps = 3  # quality is switched while playing
    play(session, actions(6, 1))
    session.rewind()
    saved.save(tmp_path / "walk.dream", session.snapshot())
    dream = saved.load(tmp_path / "walk.dream", session.checkpoint)
    assert dream.steps.tolist() == [1] * 5 + [3] * 5
    again = Session(load(path))
    again.replay(dream)
    for _ in range(10):
        assert again.controls.name == "replay"
        again.tick()
    assert same(again.dream.state, dream.state) and np.array_equal(again.now.picture, session.now.picture)
    assert headless.compared(again.snapshot(), dream).endswith("the same, bit for bit")
    again.tick()
    assert again.controls.name == "keyboard" and again.scene.steps == 1 and again.now.frames == 11


def test_on_another_executable_a_dream_goes_on_alike(path: Path) -> None:
    """The tolerance for the next frame: a batch of two, 2 grey levels in the mean; 16 bits instead of 32, 30 dB."""
    session = Session(load(path))
    play(session, actions(10))
    dream, action = session.snapshot(), torch.tensor([[1.0, 0, 1, 0]])
    expected = torch.from_numpy(session.step([1, 0, 1, 0]).picture)[None]
    two = WorldState.cat([dream.state, dream.state])
    wide = session.scene.model.step(two, action.expand(2, 4), session.scene.steps)[0].frames
    assert (wide.float() - expected.float()).abs().mean() <= 2
    half = load(path)
    prepare(half.model, "16", "cpu")
    other = Session(half, beginning=dream)
    assert other.scene.model.low_precision and saved.executable(other.scene.model) != dream.about.executable
    picture = torch.from_numpy(other.step([1, 0, 1, 0]).picture)[None]
    assert psnr(expected, picture).item() >= 30


def test_dream_files_that_do_not_fit_are_named(path: Path, tmp_path: Path) -> None:
    checkpoint = load(path)
    session = Session(checkpoint)
    play(session, actions(3))
    good = tmp_path / "good.dream"
    saved.save(good, session.snapshot())
    content = good.read_bytes()
    flipped = bytearray(content)
    flipped[-1000] ^= 1
    (tmp_path / "short.dream").write_bytes(content[: len(content) // 2])
    (tmp_path / "flipped.dream").write_bytes(flipped)
    (tmp_path / "score.dream").write_bytes(content.replace(b'\\"seed\\": 0', b'\\"seed\\": 1'))
    (tmp_path / "empty.dream").write_bytes(b"")
    (tmp_path / "other.dream").write_bytes(path.read_bytes())
    (tmp_path / "older.dream").write_bytes(content.replace(saved.DREAM_FORMAT.encode(), b"game_wm dream/1"))
    (tmp_path / "folder.dream").mkdir()
    with pytest.raises(UserError, match="of another version"):
        saved.load(tmp_path / "older.dream", checkpoint)
    for name in ("short", "flipped", "score", "empty", "other", "older", "folder", "missing"):
        with pytest.raises(UserError) as error:
            saved.load(tmp_path / f"{name}.dream", checkpoint)
        assert f"{name}.dream" in str(error.value) and "\n" not in str(error.value)
    elsewhere = load(tiny_checkpoint(tmp_path / "elsewhere.safetensors", contexts=2))
    with pytest.raises(UserError, match="another checkpoint"):
        saved.load(good, elsewhere)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        saved.save(tmp_path / "file" / "a.dream", session.snapshot())
    assert not list(tmp_path.glob(".*"))


def test_dreams_on_the_command_line(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = load(path)
    prepare(checkpoint.model, "32", "cpu")
    session = Session(checkpoint)
    play(session, actions(4))
    saved.save(tmp_path / "walk.dream", session.snapshot())
    run = [str(path), "--headless", "--json", "--precision", "32"]
    assert app.main([*run, "--replay", str(tmp_path / "walk.dream")]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["frames"] == 4 and "bit for bit" in err
    assert app.main([*run, "--load", str(tmp_path / "walk.dream"), "--frames", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 2
    assert app.main([*run[:2], "--precision", "16", "--replay", str(tmp_path / "walk.dream")]) == 0
    assert "not the same" in (said := capsys.readouterr().err) and "bfloat16" in said
    for bad in (["--load", str(path)], ["--replay", str(tmp_path / "walk.dream"), "--frames", "2"],
                ["--load", str(tmp_path / "walk.dream"), "--context", "1"]):  # fmt: skip
        assert main_guard(lambda bad=bad: app.main([*run, *bad])) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
