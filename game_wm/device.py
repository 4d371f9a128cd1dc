"""Where a model runs: "cpu", "cuda", "cuda:1", "mps", or "auto" for a CUDA device where there is one.

MPS (Apple's GPU) is accepted but was never tried.
"""

from __future__ import annotations

import torch

from data_collect.errors import UserError, nearest

KINDS = ("auto", "cpu", "cuda", "cuda:1", "mps")


def usable(name: str | torch.device) -> str:
    """The name of a device that works here. `UserError`: PyTorch has no such device, or this machine has none."""
    name = str(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"the device {name!r} cannot be used: name {', '.join(KINDS[:-1])} or {KINDS[-1]}{nearest(name, KINDS)}"
        ) from None
    if device.type == "meta":
        raise UserError("the device 'meta' cannot be used: it holds no numbers; name cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"the device {name!r} cannot be used: PyTorch finds {counted(count)} here; use --device cpu")
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        raise UserError(
            f"the device {name!r} cannot be used ({str(error).splitlines()[0]}): use --device cpu"
        ) from error
    return name


def counted(cards: int) -> str:
    """ "no CUDA device", "one CUDA device, cuda:0", "CUDA devices cuda:0 to cuda:3"."""
    if cards < 2:
        return "one CUDA device, cuda:0," if cards else "no CUDA device"
    return f"CUDA devices cuda:0 to cuda:{cards - 1}"


def in_words(device: torch.device) -> str | None:
    """The name of a GPU; None for the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"cpu": None, "mps": "Apple GPU"}.get(device.type, device.type)


def wait(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it; the processor always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
