"""The one way in which a model remembers what working memory no longer holds: `Memory`, whatever its kind.

    state = memory.start(prompt, tokenizer)             # once
    step = memory.foresee(state, action)                # then, for each frame: where the action is expected to lead,
    views = memory.views(state, step, tokenizer)        # what memory shows of the frame there,
    latent = memory.settle(state, step, latent)         # the generated frame, corrected by what is known of the step,
    memory.commit(state, step, frame)                   # read back into the state, in place,
    memory.store(state)                                 # and kept for good

Play (`world.py`), own rollouts (`train/stages/rollout.py`) and the drawing of training views
(`train/first_person/draw_views.py`) call the same object, so that a network is shown in play what it learnt from. A
kind of memory is one class here and one line in `registry.py`.

A state is a dataclass of tensors (or of such dataclasses), the player first in each; a step is a NamedTuple of tensors:
so both can be saved, stacked, cut and compiled by whoever holds them. Networks run at the precision of the caller's
autocast; arithmetic whose rounding would add up turns it off.

Legend: B players, P prompt frames, H, W picture, C channels, h, w latent grid, M channels of the views, A action
vector, R pictures that are recalled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

if TYPE_CHECKING:
    from game_wm.model.config import DynamicsConfig
    from game_wm.model.tokenizer import Tokenizer


class Prompt(NamedTuple):
    """Recorded frames that a dream begins with, or that training reads: `latents` (B, P, C, h, w); `actions`
    (B, P - 1 or more, A), of which number t led to frame t + 1; their `frames` uint8 (B, P, H, W, 3), decoded from the
    latents where they are not given; `poses` (B, P, 3), where the game tells them."""

    latents: Tensor
    actions: Tensor
    frames: Tensor | None = None
    poses: Tensor | None = None

    def part(self, rows: slice) -> Prompt:
        """Some of the frames."""
        return Prompt(*(None if x is None else x[:, rows] for x in self))  # type: ignore[arg-type]


class Frame(NamedTuple):
    """A finished frame: its `latent` (B, C, h, w), its `picture` uint8 (B, H, W, 3) and the `action` (B, A) that led
    to it."""

    latent: Tensor
    picture: Tensor
    action: Tensor


class Recalled(NamedTuple):
    """What memory gives for one player's next frame, to be looked at: the recalled `pictures` uint8 (R, H, W, 3) and
    their `ages` in frames (R,), `NEVER` or more for those known before play; the `view` drawn from them uint8 (H, W, 3)
    and where it is drawn, `known` bool (H, W); and where the frames that are kept were seen, `trail` (n, 2) from the
    player's own position: to the right and ahead, in sides of a place."""

    pictures: Tensor
    ages: Tensor
    view: Tensor
    known: Tensor
    trail: Tensor


NEVER = 2**62  # the age in frames of what no player has seen: known before play


class Memory(ABC, nn.Module):
    """A kind of memory: how its state begins, what it shows of a coming frame, and how it takes a finished one in.

    `Config` holds the kind's sizes and `State` its state, each a dataclass, and `Step` is what `foresee` gives, a
    NamedTuple; None where it has none.
    """

    Config: ClassVar[Any] = None
    State: ClassVar[Any] = None
    Step: ClassVar[Any] = None
    needs_pictures: ClassVar[bool] = True  # whether it needs the picture of every frame
    config: Any = None  # of the kind's `Config`
    grows: bool = False  # whether the state's size does: it then plays alone, uncompiled, and cannot be rewound
    placed: bool = False  # whether a prompt's poses are made use of
    reaches_back: bool = False  # whether it holds more than the last frames: long prompts pay, there is much to inspect
    packed: ClassVar[tuple[str, ...]] = ()  # prefixes of the tensors that a checkpoint file holds in another form

    @classmethod
    @abstractmethod
    def build(cls, config: Any, dynamics: DynamicsConfig) -> Memory:
        """A memory of these sizes for a network of those."""

    @abstractmethod
    def start(self, prompt: Prompt, tokenizer: Tokenizer) -> Any:
        """The state after a prompt."""

    @abstractmethod
    def foresee(self, state: Any, action_BA: Tensor) -> Any:
        """Where an action is expected to lead, and what is recalled for it."""

    @abstractmethod
    def views(self, state: Any, step: Any, tokenizer: Tokenizer) -> Tensor | None:
        """The views (B, M, h, w) that the network reads for the frame there; None where it reads none."""

    @abstractmethod
    def commit(self, state: Any, step: Any, frame: Frame) -> None:
        """Take a finished frame in, in place; all but `store`."""

    def store(self, state: Any) -> None:
        """Keep the last frame for good, in place. Apart from `commit`, which may be compiled: compiled code would copy
        the whole store for one frame of it."""

    def settle(self, state: Any, step: Any, latent_BChw: Tensor) -> Tensor:
        """A generated latent, corrected by what is known of the step."""
        return latent_BChw

    def inspect(self, state: Any, action_BA: Tensor, tokenizer: Tokenizer, player: int = 0) -> Recalled | None:
        """What is recalled for a player's next frame, to be looked at; None where there is nothing to see."""
        return None

    # --- training ---

    def start_window(self, window: Prompt, at: int, tokenizer: Tokenizer) -> tuple[Any, Sequence[Any] | None]:
        """The state after the first `at` frames of a recorded window, and the steps to the frames from there on where
        training takes them from the recording; None where they are foreseen."""
        return self.start(window.part(slice(at)), tokenizer), None

    def for_recordings(self, aligned: bool) -> Memory:
        """The same as it draws the views of whole episodes, for any network; `aligned` as the network is."""
        return self

    def for_network(self, dynamics: DynamicsConfig) -> Memory:
        """The same for another network, as it reads it."""
        return self

    def within_window(self) -> Memory:
        """The part of this memory that the few frames of a training window suffice for: own rollouts renew its views,
        the last ones that the network reads; the others stay as they were drawn over the whole episode."""
        return self

    # --- what the rest of the program asks ---

    def networks(self) -> list[nn.Module]:
        """The networks that may run at low precision."""
        return []

    def about(self) -> dict[str, str]:
        """What a model card says of it."""
        return {}

    def pack(self) -> dict[str, Tensor]:
        """What a checkpoint file holds for the `packed` tensors."""
        return {}

    def unpack(self, tensors: dict[str, Tensor], height: int, width: int) -> dict[str, Tensor]:
        """The inverse: entries of the `state_dict` from a file's tensors, for frames of this size. KeyError or
        ValueError where they do not fit."""
        return {}

    def usual_length(self, state: Any, action_1A: Tensor) -> float | None:
        """How far this action usually moves the only player; None where memory does not know positions."""
        return None

    def last_length(self, state: Any) -> float:
        """How far the last action did, where `usual_length` tells."""
        raise NotImplementedError

    def weights(self) -> list[Tensor]:
        """What its views depend on, beside the frames."""
        return list(self.state_dict().values())


class NoMemory(Memory):
    """The memory of a model without one."""

    needs_pictures = False

    @classmethod
    def build(cls, config: Any, dynamics: DynamicsConfig) -> NoMemory:
        return cls()

    def start(self, prompt: Prompt, tokenizer: Tokenizer) -> None:
        return None

    def foresee(self, state: Any, action_BA: Tensor) -> None:
        return None

    def views(self, state: Any, step: Any, tokenizer: Tokenizer) -> None:
        return None

    def commit(self, state: Any, step: Any, frame: Frame) -> None:
        return None
