"""Prompt and input images to what the network is conditioned on."""

from __future__ import annotations

from engine.passes.precision import ENCODERS
from engine.stages import Stage
from engine.types import Model, State


def text(model: Model) -> Stage:
    """Write `cond`, and `uncond` when the request uses classifier-free guidance."""
    uses = tuple(name for name in model.components if name.startswith(ENCODERS))
    return Stage("text_encoding", uses, model.encode)


def image(model: Model) -> Stage:
    """Write `image` and what the model makes of it when the request has input images."""

    def run(state: State) -> None:
        if state.request.image_path:
            model.encode_image(state)

    return Stage("image_encoding", ("vae", "image_encoder"), run)
