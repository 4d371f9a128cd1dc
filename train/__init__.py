"""Training: a recording becomes a tokenizer, a dynamics model and a distilled checkpoint (`python -m train --help`)."""

from pathlib import Path


def locate(path: str) -> str:
    """A file as named, or, where there is none, the one of that name in this project (`configs/own/quick.yaml`)."""
    own = Path(__file__).parent.parent / path
    return str(own) if not Path(path).exists() and own.exists() else path
