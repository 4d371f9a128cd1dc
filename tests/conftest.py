"""What holds for all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xvfb

# What a shell starts in the background ignores Ctrl-C, and so would every process of a test that presses it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skip", action="store_true", help="a test that is skipped fails: nothing may be missing here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first: begun last, one would run alone while the other cores wait."""
    length: dict[Path, int] = {}
    for item in items:
        marked = 2 * (item.get_closest_marker("timeout") is not None) + (item.get_closest_marker("slow") is not None)
        length[item.path] = max(length.get(item.path, 0), marked)
    items.sort(key=lambda item: -length[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    return forbid_skip((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    """`importorskip` at the top of a file skips all of it."""
    return forbid_skip((yield), collector.config)


def forbid_skip(report: Any, config: pytest.Config) -> Any:
    """With --no-skip: the report of a skipped test as that of a failed one."""
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption("--no-skip"):
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may be: {report.longrepr[2]}"
    return report


@pytest.fixture(scope="session")
def compiled_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For GAME_WM_CACHE: tests that play the endless `tiny_checkpoint` in 32 bits wait for the compiler once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def x11() -> Iterator[xvfb.Xvfb]:
    """A real X11 display, see xvfb.py."""
    if missing := xvfb.missing():
        pytest.skip(f"no {' and no '.join(missing)}: make packages")
    with xvfb.Xvfb() as display:
        yield display


@pytest.fixture
def in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """For models of fakes.py, which have no layers that could be converted."""
    from game_wm.acceleration import precision

    monkeypatch.setattr(precision, "supported", lambda device="cpu": False)


@pytest.fixture(scope="session")
def features() -> Any:
    """The network of the perceptual measures."""
    from game_wm.evaluation.feature_distance import FeatureDistance

    return FeatureDistance()


@pytest.fixture(scope="session")
def web_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that tests of the page play, see web_table.py."""
    from web_table import web_checkpoint

    return web_checkpoint(tmp_path_factory.mktemp("web"))


@pytest.fixture
def loaded(web_path: Path) -> Any:
    """The same, read anew for each test."""
    from game_wm.checkpoint import load

    return load(web_path)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Opens a window, see windowed.py."""
    from windowed import opening

    yield from opening(monkeypatch, tmp_path / "recordings")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with memory, whose episodes never end."""
    from tiny import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", prompt=12, recall=True, endless=True)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as a real checkpoint."""
    import torch
    from fakes import MAZE

    from game_wm.checkpoint import Checkpoint, save
    from game_wm.model.config import DynamicsConfig
    from game_wm.model.tokenizer import TokenizerConfig
    from game_wm.world import WorldConfig, WorldModel

    torch.manual_seed(0)
    config = WorldConfig(
        TokenizerConfig(height=16, width=16, channels=4, encoder_widths=(16, 16), decoder_widths=(16, 16)),
        DynamicsConfig(channels=4, height=4, width=4, actions=4, window=4, widths=(32, 32), blocks=(1, 1),
                       condition=32, context_width=32, context_blocks=1, heads=2, registers=1),
    )  # fmt: skip
    contexts = torch.randint(0, 255, (3, 5, 16, 16, 3), dtype=torch.uint8)
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    save(path, Checkpoint(WorldModel(config), MAZE, "maze", contexts, torch.zeros(3, 4, 4), {}, "tiny"))
    return path


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk is for power cuts, which no test makes."""
    from data_collect.shards import writer

    monkeypatch.setattr(writer.os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine short episodes of a small maze."""
    from data_collect.recording.record import record

    folder = tmp_path_factory.mktemp("maze")
    record(folder, "maze?size=7", "random", 360, seed=3, episode_frames=40)
    return folder


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten episodes of 50 frames; a latent says which episode (channel 0) and frame (channel 1) it is."""
    import numpy as np

    from train.data import encode

    folder = tmp_path_factory.mktemp("latents")
    encode.write_synthetic(folder, (4, 4, 4), actions=3, episodes=10, frames=50)
    path = folder / "latents-00000.npy"
    values = np.load(path)
    values[:, 0], values[:, 1] = (np.arange(500) // 50)[:, None, None], (np.arange(500) % 50)[:, None, None]
    np.save(path, values)
    return folder


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation plays the game of toy.py."""
    from toy import install

    install(monkeypatch)


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation plays the game of ring.py."""
    from ring import install

    install(monkeypatch)
