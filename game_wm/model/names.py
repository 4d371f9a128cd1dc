"""Names of weights: the ones that older checkpoints have, and the ones of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

RENAMED = {"enter": "conv_in", "leave": "conv_out", "was": "observed", "next": "forecast"}
OF_TRANSFORMERS = {"leave": "code_logits", "leave_digits": "digit_logits"}


def present_names(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Weights under the names of today, whatever the age of the file that they come from."""
    transformers = {
        name.removesuffix("leave_digits.weight") for name in weights if name.endswith("leave_digits.weight")
    }

    def present(name: str) -> str:
        parts = name.split(".")
        for i, part in enumerate(parts):
            trunk = "".join(f"{each}." for each in parts[:i])
            parts[i] = (OF_TRANSFORMERS if trunk in transformers else {}).get(part) or RENAMED.get(part, part)
        return ".".join(parts)

    return {present(name): value for name, value in weights.items()}
