"""What is known of a model, and the words that entries share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.types import Request, Task

IMG2IMG, INPAINT = "img2img", "inpaint"
SMALL_AREA = 832 * 480
MAX_CLIP = 1920 * 1088 * 257  # pixels of all frames
DISTILLED = "guidance is distilled into it"
NO_EMBEDDING = "it has no guidance embedding"
IMAGE_INPUT = ("image_path", "mask_path", "strength")
IMAGE_FEATURES = (IMG2IMG, INPAINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What must be known of a model before its weights are: identity, tasks, defaults, limits.

    `uses` lists the optional request fields that the model reads, `ignores` those that it accepts without effect, for
    the reason given, `limits` upper bounds of fields. `where` says which folders of its pipeline class are the model,
    by values in the configs of components (and of "model_index"): {} means all that no entry above took, None that
    only a name tells. `cfg_scale` names the field that scales classifier-free guidance, which is on above `cfg_above`.
    """

    id: str
    family: str  # a module of engine.models
    pipeline: str
    tasks: tuple[Task, ...]
    names: tuple[str, ...] = ()
    where: Mapping[str, Mapping[str, Any]] | None = None
    features: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    small_defaults: Mapping[str, Any] = field(default_factory=dict)  # instead, for outputs of at most SMALL_AREA
    uses: tuple[str, ...] = ()
    ignores: Mapping[str, str] = field(default_factory=dict)
    native_only: Mapping[str, str] = field(default_factory=dict)  # field -> why the stock call does not work with it
    limits: Mapping[str, int] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()  # what diffusers_kwargs may hold; empty for a native pipeline
    variants: Mapping[str, str] = field(default_factory=dict)  # feature -> stock pipeline class that has it
    variant_arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # feature -> `arguments` of it
    stock_names: Mapping[str, str] = field(default_factory=dict)  # field -> argument of the stock call, unless obvious
    autocast: bool = False  # a stock call over components of several precisions, which must be cast between them
    cfg_scale: str | None = None
    cfg_above: float = 1.0
    max_images: int = 1
    min_image_side: int = 1  # of an input image, in pixels
    max_image_ratio: float = math.inf  # of an input image's sides
    enlarges: bool = True  # an output shaped by a small image has the default area all the same
    shaped_by: int = 0  # which input image gives an output without a size its shape: the first, or -1 the last
    shape_multiple: int | None = None  # sides that an image gives: the nearest; None: the last below of `multiple`
    reserved: tuple[str, ...] = ()  # words that no prompt may hold, for they stand for something else
    multiple: int = 16
    frame_stride: int = 1
    few_steps: bool = False
    own_sigmas: bool = False  # it gives them to its scheduler, which has to take them
    max_pixels: int = 4096 * 4096
    precision: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)  # of components, before those that a folder names
    unread: tuple[str, ...] = ()  # patterns of weights for which the denoiser's class has no place
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the pipeline; the folder's model_index.json wins

    def feature_of(self, request: Request) -> str | None:
        """Return which of the stock pipeline's `variants` draws a request; None for the pipeline itself."""
        wanted = INPAINT if request.mask_path else IMG2IMG if request.image_path else None
        return wanted if wanted in self.variants else None

    @property
    def is_video(self) -> bool:
        return any(task.endswith("V") for task in self.tasks)

    def default_precision(self, component: str) -> str:
        """Precision of a component when the user names none."""
        return self.precision.get(component, self.precision.get("default", "bf16"))


def size(height: int, width: int, steps: int, **more: Any) -> dict[str, Any]:
    """Return the defaults of a picture."""
    return {"height": height, "width": width, "num_inference_steps": steps, **more}


def clip(height: int, width: int, frames: int, fps: int, steps: int, **more: Any) -> dict[str, Any]:
    """Return the defaults of a clip."""
    return size(height, width, steps, num_frames=frames, fps=fps, **more)


def edits(name: str) -> dict[str, Any]:
    """Return the stock pipelines by whose name diffusers edits pictures."""
    return {"features": IMAGE_FEATURES, "variants": {key: f"{name}{key.title()}Pipeline" for key in IMAGE_FEATURES}}
