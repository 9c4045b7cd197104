"""Graphs of ComfyUI: what draws is found, whatever stands between, and links in a ring end."""

from __future__ import annotations

from typing import Any

from engine import comfy


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


CLASSIC = {
    "3": node(
        "KSampler", seed=42, steps=25, cfg=6.5, sampler_name="euler", scheduler="normal", denoise=1.0,
        model=["10", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", ckpt_name="folder\\dream.safetensors"),
    "5": node("EmptyLatentImage", width=640, height=448, batch_size=1),
    "6": node("CLIPTextEncode", text="a red boat", clip=["10", 1]),
    "7": node("CLIPTextEncode", text="fog", clip=["10", 1]),
    "10": node("LoraLoader", lora_name="ink.safetensors", strength_model=0.6, model=["4", 0], clip=["4", 1]),
}  # fmt: skip
FLUX = {
    "1": node("SamplerCustomAdvanced", noise=["2", 0], guider=["3", 0], sigmas=["4", 0], latent_image=["5", 0]),
    "2": node("RandomNoise", noise_seed=7),
    "3": node("BasicGuider", model=["6", 0], conditioning=["7", 0]),
    "4": node("BasicScheduler", steps=4, denoise=0.5, scheduler="simple", model=["6", 0]),
    "5": node("EmptySD3LatentImage", width=1024, height=768),
    "6": node("UNETLoader", unet_name="flux1-dev.safetensors"),
    "7": node("FluxGuidance", guidance=3.5, conditioning=["8", 0]),
    "8": node("CLIPTextEncode", text=["9", 0]),
    "9": node("PrimitiveString", value="a castle"),
}


def test_a_sampler_and_its_texts() -> None:
    assert comfy.parse(CLASSIC) == (
        {
            "seed": 42,
            "num_inference_steps": 25,
            "guidance_scale": 6.5,
            "width": 640,
            "height": 448,
            "prompt": "a red boat",
            "negative_prompt": "fog",
        },
        "dream",
        ["sampler_name: euler", "scheduler: normal"],
        [("ink", 0.6)],
    )


def test_a_sampler_in_parts() -> None:
    found = comfy.parse(FLUX)
    assert found is not None
    assert found[0] == {
        "seed": 7,
        "num_inference_steps": 4,
        "strength": 0.5,
        "guidance_scale": 3.5,
        "width": 1024,
        "height": 768,
        "prompt": "a castle",
    }
    assert found[1] == "flux1-dev"


def test_what_draws_nothing_is_no_graph() -> None:
    assert comfy.parse({"prompt": "a boat", "steps": 3}) is None
    assert comfy.parse({"1": node("LoadImage", image="x.png")}) is None


def test_links_in_a_ring_or_to_nowhere_end() -> None:
    ring = {"1": node("KSampler", positive=["2", 0], model=["9", 0]), "2": node("Reroute", a=["1", 0], b=["2", 0])}
    found = comfy.parse(ring)
    assert found is not None
    assert found[0] == {}
    assert comfy.parse({"1": {"class_type": 5, "inputs": []}, "2": None, "3": node("KSampler", seed=True)}) is not None
