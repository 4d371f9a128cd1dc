"""The one way in which a model remembers what working memory no longer holds: `Memory`, whatever its kind.

    state = memory.start(prompt, tokenizer)             # once
    step = memory.foresee(state, action)                # then, for each frame: where the action is expected to lead,
    views = memory.views(state, step, tokenizer)        # what memory shows of the frame there,
    latent = memory.settle(state, step, latent)         # the generated frame, corrected by what is known of the step,
    picture = memory.restore(state, step, views, latent, picture)   # its picture, with what is remembered exactly,
    memory.commit(state, step, frame)                   # read back into the state, in place,
    memory.store(state, step)                           # and kept for good

Play (`world.py`), own rollouts (`train/stages/rollout.py`) and the drawing of training views
(`train/first_person/draw_views.py`) call the same object, so play shows a network what training showed it. A kind of
memory is one class of this protocol and one line in `registry.py`.

A state is a dataclass of tensors (or of such dataclasses) whose first axis is the player; a step is a NamedTuple of
tensors. So both can be saved, stacked, split and compiled from outside. Networks run under the caller's autocast. Sums
over many frames turn it off, since their rounding errors would grow.

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
    """Recorded frames that a dream begins with, or that training reads.

    `latents` (B, P, C, h, w). `actions` (B, P - 1 or more, A): action t leads from frame t to frame t + 1. `frames`
    uint8 (B, P, H, W, 3): decoded from the latents if None. `poses` (B, P, 3): None if the game does not know them.
    """

    latents: Tensor
    actions: Tensor
    frames: Tensor | None = None
    poses: Tensor | None = None

    def part(self, rows: slice) -> Prompt:
        return Prompt(*(None if x is None else x[:, rows] for x in self))  # type: ignore[arg-type]


class Frame(NamedTuple):
    """A finished frame: its `latent` (B, C, h, w), its `picture` uint8 (B, H, W, 3) and the `action` (B, A) that led
    to it."""

    latent: Tensor
    picture: Tensor
    action: Tensor


class Recalled(NamedTuple):
    """What memory shows of one player's next frame, for a person to look at.

    `pictures` uint8 (R, H, W, 3): the stored frames that are used. `ages` (R,): how many frames ago each was seen; from
    `NEVER` on, it was known before play. `view` uint8 (H, W, 3): drawn from them. `known` bool (H, W): the pixels that
    are drawn. `trail` (n, 2): where stored frames were seen from, right and ahead of the player; the unit is the side
    of a place (`first_person/episodic.py`).
    """

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
    grows: bool = False  # the state's size grows: experiments only, in a batch of one, not compiled, not rewound
    placed: bool = False  # it uses the poses of a prompt
    reaches_back: bool = False  # it holds more than the last frames, so a longer prompt is worth its time
    packed: ClassVar[tuple[str, ...]] = ()  # prefixes of tensors that a checkpoint file holds compressed

    @classmethod
    @abstractmethod
    def build(cls, config: Any, dynamics: DynamicsConfig) -> Memory:
        """A memory with the sizes of `config`, for a network with those of `dynamics`."""

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
        """Read a finished frame into the state, in place, except for what `store` does."""

    def store(self, state: Any, step: Any) -> None:
        """Write the last frame, to which this step led, into the long-term store, in place. It is not part of `commit`,
        because that may be compiled, and compiled code would copy the whole store to change one entry."""

    def settle(self, state: Any, step: Any, latent_BChw: Tensor) -> Tensor:
        """A generated latent, corrected by what is known of the step."""
        return latent_BChw

    def restore(
        self, state: Any, step: Any, views_BMhw: Tensor | None, latent_BChw: Tensor, picture_BHWC: Tensor
    ) -> Tensor:
        """The picture uint8 (B, H, W, 3) of a settled latent, with the pixels that are remembered exactly. `views`:
        those that the frame was drawn from."""
        return picture_BHWC

    def inspect(self, state: Any, action_BA: Tensor, tokenizer: Tokenizer, player: int = 0) -> Recalled | None:
        """What is recalled for a player's next frame, to be looked at; None where there is nothing to see."""
        return None

    # --- training ---

    def start_window(self, window: Prompt, at: int, tokenizer: Tokenizer) -> tuple[Any, Sequence[Any] | None]:
        """The state after the first `at` frames of a recorded window, and the steps to the later frames as recorded;
        None instead of steps where training predicts them as play does."""
        return self.start(window.part(slice(at)), tokenizer), None

    def for_recordings(self, aligned: bool) -> Memory:
        """The memory that draws training views over whole episodes, once for all networks that read them. `aligned`:
        whether those networks draw a frame from the pose that was predicted."""
        return self

    def for_network(self, dynamics: DynamicsConfig) -> Memory:
        """This memory's weights, with the views that another network reads."""
        return self

    def within_window(self) -> Memory:
        """The part of this memory that needs no more past than a training window holds. Own rollouts draw its views
        anew from generated frames; they are the last channels of the views. The other channels stay as they were drawn
        over the whole episode."""
        return self

    # --- what the rest of the program asks ---

    def networks(self) -> list[nn.Module]:
        """The networks that may run at low precision."""
        return []

    def about(self) -> dict[str, str]:
        return {}

    def pack(self) -> dict[str, Tensor]:
        """What a checkpoint file holds for the `packed` tensors."""
        return {}

    def unpack(self, tensors: dict[str, Tensor], height: int, width: int) -> dict[str, Tensor]:
        """The inverse: entries of the `state_dict` from a file's tensors, for frames of this size. KeyError or
        ValueError where they do not fit."""
        return {}

    def usual_length(self, state: Any, action_1A: Tensor) -> float | None:
        """How far this action usually moves the player (a batch of one); None if memory knows no positions."""
        return None

    def last_length(self, state: Any) -> float:
        """How far the last action moved the player, in the unit of `usual_length`."""
        raise NotImplementedError

    def weights(self) -> list[Tensor]:
        """The tensors that its views depend on: training views are drawn anew where one has changed."""
        return list(self.state_dict().values())


class NoMemory(Memory):
    """The null memory, of a model that remembers only its window."""

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
