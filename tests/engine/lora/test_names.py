"""Names of modules: every original name leads somewhere, and a denoiser's own names lead to themselves."""

from __future__ import annotations

from typing import Any

import pytest

from engine.lora import names

FAMILIES = {
    "FluxTransformer2DModel": "flux",
    "Flux2Transformer2DModel": "flux2",
    "HunyuanVideoTransformer3DModel": "hunyuan-video",
    "SD3Transformer2DModel": "sd3",
    "WanTransformer3DModel": "wan-i2v",
    "ZImageTransformer2DModel": "z-image",
}


@pytest.mark.parametrize("cls", names.ORIGINAL)
def test_every_original_name_leads_to_a_module_of_the_denoiser(cls: str, lora: Any) -> None:
    network = lora.denoiser(FAMILIES[cls])
    assert type(network).__name__ == cls
    known = names.places(network)
    for line in names.ORIGINAL[cls].splitlines():
        original = line.partition(":")[0]
        if not original or line.startswith(" "):
            continue
        name = names.flat(original.format(n=0, s="layers"))
        if name.startswith(("single_blocks_0_linear", "single_blocks_0_processor")) and cls.startswith("Flux2"):
            continue
        assert name in known, original


@pytest.mark.parametrize("family", [*FAMILIES.values(), "qwen-image", "glm-image", "sdxl"])
def test_every_layer_is_known_by_its_own_name(family: str, lora: Any) -> None:
    network = lora.denoiser(family)
    known = names.places(network)
    for path, module in network.named_modules():
        if getattr(module, "weight", None) is not None:
            assert known[names.flat(path)].modules == (path,)


def test_a_bare_table_is_no_module(lora: Any) -> None:
    place = names.places(lora.denoiser("wan"))["blocks_0_modulation"]
    assert place == names.Place(("blocks.0.scale_shift_table",), is_parameter=True)


def test_every_converter_is_one_of_diffusers() -> None:
    import diffusers
    from diffusers.loaders import lora_pipeline

    for cls, mixin in names.CONVERTERS.items():
        assert hasattr(diffusers, cls) and hasattr(lora_pipeline, mixin)
