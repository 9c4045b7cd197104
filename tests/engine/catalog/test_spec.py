"""What an entry says when nobody else does."""

from __future__ import annotations

import dataclasses

from engine.catalog import MODELS, ModelSpec
from engine.types import Request

TINY, DEV = MODELS[:2]
BARE = ModelSpec(id="bare", family="x", pipeline="X", tasks=("T2I",))


def test_precision_goes_by_component_then_model_then_bf16() -> None:
    assert (TINY.default_precision("vae"), DEV.default_precision("vae")) == ("fp32", "bf16")
    mixed = dataclasses.replace(BARE, precision={"vae": "fp32", "default": "fp16"})
    assert (mixed.default_precision("vae"), mixed.default_precision("transformer")) == ("fp32", "fp16")


def test_a_mask_or_an_image_asks_for_a_variant_of_the_stock_pipeline() -> None:
    image = Request(prompt="x", image_path=("a.png",))
    assert DEV.feature_of(Request(prompt="x")) is None
    assert DEV.feature_of(image) == "img2img"
    assert DEV.feature_of(image.replace(mask_path="m.png")) == "inpaint"
    assert BARE.feature_of(image) is None
