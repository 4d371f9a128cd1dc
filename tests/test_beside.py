"""Whatever the real game does beside a dream, the dream plays on in its window, and a sentence says what happened."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from rude_game import rude  # noqa: E402
from tiny import tiny_world  # noqa: E402

from data_collect.dataset import Dataset  # noqa: E402
from data_collect.errors import UserError  # noqa: E402
from data_collect.schema import ActionSchema  # noqa: E402
from data_collect.shards.verify import verify  # noqa: E402
from game_wm.checkpoint import Checkpoint  # noqa: E402
from game_wm.play import headless, live_game  # noqa: E402
from game_wm.play.files import folder  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.window import Window  # noqa: E402

pytestmark = pytest.mark.slow

PROMPT = 6
SCHEMA = ActionSchema("discrete", ("noop", "left", "right"), keys={"left": "left", "right": "right"}, fps=10)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, PROMPT, 64, 64, 3), dtype=torch.uint8, generator=generator)
    model = tiny_world(actions=3)
    model.dynamics.context.outcome.bias[0] = -50  # dreams do not end
    return Checkpoint(model, SCHEMA, "", frames, torch.eye(3)[[0, 1, 2, 1, 0]].repeat(2, 1, 1), {"frames": 0}, "tiny")


def of(checkpoint: Checkpoint, deed: str, at: int = 8, **options: Any) -> Checkpoint:
    """The same, of a game that does this in that step; the prompt leads to step 5."""
    return replace(checkpoint, game=rude(deed, at, length=100, **options) + "&width=64&height=64")


def play(session: Session, steps: int) -> list[np.ndarray]:
    return [session.step(1).picture for _ in range(steps)]


@pytest.mark.parametrize("deed", ["raise", "exit", "kill", "endless"])
def test_the_dream_plays_on_where_the_real_game_fails(
    checkpoint: Checkpoint, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_game, "STEP_SECONDS", 1.0)
    session = Session(of(checkpoint, deed), view="both")
    assert session.scene.real is not None and session.scene.real.moment.frames == 5
    play(session, 2)
    assert session.scene.view == "both" and session.scene.linked and not session.scene.news()
    dreamt = play(session, 1)[0]  # the game's eighth step
    assert session.scene.view == "dream" and not session.scene.linked and np.array_equal(session.now.picture, dreamt)
    assert "the dream plays on without the real game: " in (told := session.scene.news()) and "step 8" in told
    play(session, 2)
    assert session.now.frames == 5 and not session.scene.news()
    session.show("both")  # the game begins anew
    assert session.scene.view == "both" and session.scene.real.number == 1
    play(session, 2)
    assert session.scene.real.moment.frames == 7 and len(session.scene.likeness.psnr) == 2
    session.scene.real.close()


def test_the_dream_goes_on_where_the_real_game_stood(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Alone and recorded: what was recorded is kept."""
    session = Session(of(checkpoint, "kill"), view="real", seed=3)
    assert session.scene.real is not None
    session.record_data(tmp_path / "data")
    play(session, 2)
    stood = session.now.picture.copy()
    assert session.scene.view == "real" and session.now.frames == 7
    play(session, 1)
    assert session.scene.view == "dream" and session.now.frames == 1 and len(session.dream.prompt[0]) == PROMPT
    assert np.array_equal(session.dream.prompt[0][-1].numpy(), stood)
    assert f"saved {tmp_path / 'data'}" in session.scene.news() and session.data is None
    assert len(Dataset(tmp_path / "data").episode(0).actions) == 7 and "1 episodes replayed" in verify(
        tmp_path / "data"
    )
    session.show("real")
    assert session.scene.view == "real" and session.scene.real.number == 1
    session.scene.real.close()


def test_a_game_that_fails_at_once_leaves_the_dream(checkpoint: Checkpoint) -> None:
    """In the prompt it stands before the step that fails; where nothing can be played the dream is shown."""
    session = Session(of(checkpoint, "raise", at=4), view="both")
    assert session.scene.view == "both" and session.scene.real is not None and session.scene.real.moment.frames == 2
    session.scene.real.close()
    for options in ({"at": 0}, {"at": 1}, {"when": "init"}):
        session = Session(of(checkpoint, "exit", **options), view="both")
        assert session.scene.view == "dream" and "SystemExit" in session.scene.news()
        play(session, 2)
        session.show("real")
        assert session.scene.view == "dream" and "SystemExit" in session.scene.news() and session.now.frames == 2
        if session.scene.real is not None:
            session.scene.real.close()
    with pytest.raises(UserError, match="unknown game"):  # no fault of a game
        Session(replace(checkpoint, game="chess"), view="both")


def test_episodes_that_cannot_begin_go_on_in_the_dream(checkpoint: Checkpoint) -> None:
    session = Session(
        of(checkpoint, "kill", at=0, seeds=2), view="both", seed=1
    )  # seeds of episodes 0, 1, 2: odd, even
    assert session.scene.real is not None and session.scene.real.number == 0 and session.scene.view == "both"
    session.scene.restart(1)
    assert session.scene.view == "dream" and "the reset" in session.scene.news()
    play(session, 2)
    assert session.now.frames == 2
    session.show("both")
    assert session.scene.real.number == 2 and session.scene.view == "both"
    session.scene.real.close()


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a window; its files go to tmp_path."""
    monkeypatch.setattr(folder, "FOLDER", tmp_path)
    windows: list[Window] = []

    def make(checkpoint: Checkpoint, view: str = "dream") -> Window:
        windows.append(Window("tiny", lambda report: Session(checkpoint, view=view, fps=0)))
        assert windows[-1].load()
        windows[-1].begin()
        return windows[-1]

    yield make
    for window in windows:
        window.commands.finish(window.session)
    pygame.display.quit()


@pytest.mark.parametrize("view", ["both", "dream"])  # begun in the thread that loads, or by a key
@pytest.mark.parametrize("deed", ["pygame", "doubles", "chdir", "state", "thread", "print", "threads"])
def test_what_the_real_game_does_to_its_process_does_not_reach_the_window(
    checkpoint: Checkpoint, opened: Any, deed: str, view: str
) -> None:
    folder, size, title = os.getcwd(), None, None
    window = opened(of(checkpoint, deed), view)
    size, title = pygame.display.get_surface().get_size(), pygame.display.get_caption()
    if view == "dream":
        window.commands.obey("beside")
    for _ in range(6):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_LEFT))
        window.session.tick()  # the game plays, and may take what is in the queue
        assert window.pump() and window.session.controls.keyboard.held == ("left",)
        pygame.event.post(pygame.event.Event(pygame.KEYUP, key=pygame.K_LEFT))
        window.turn()
    assert window.session.scene.view == "both" and window.session.scene.real.moment.frames >= 11
    assert (pygame.display.get_surface().get_size(), pygame.display.get_caption()) == (size, title)
    assert torch.get_default_dtype() == torch.float32 and os.getcwd() == folder


def test_the_window_says_that_the_real_game_has_failed(
    checkpoint: Checkpoint, opened: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    window = opened(of(checkpoint, "exit"), "both")
    for _ in range(4):
        window.advance()
    assert window.session.scene.view == "dream" and window.hint.startswith("the dream plays on without the real game")
    assert "SystemExit" in window.hint and "G or C begins it anew" in window.hint
    assert capsys.readouterr().err.count("error: the dream plays on") == 1
    window.commands.obey("switch")
    assert window.session.scene.view == "real" and "the real game; G dreams on" in window.hint
    for _ in range(3):
        window.advance()
    window.commands.obey("switch")
    assert window.session.scene.view == "real"  # in the next episode
    assert window.hint.startswith("the real game;")


def test_without_a_window_the_dream_plays_on_as_well(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(of(checkpoint, "exit", at=20), view="both", player="random", rewind=0)
    assert headless.play(session, 30)["frames"] == 30
    assert capsys.readouterr().err.count("the dream plays on without the real game") == 1
