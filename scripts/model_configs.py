"""Writes assets/configs: the architecture of every model of the catalog at its real size, as component configs.

    .venv/bin/python scripts/model_configs.py

A config is what the class takes by default plus the values below, spelled out, so that later defaults change nothing.
"""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "assets" / "configs"

VERSION = "transformers_version"

Part = tuple[str, str, dict[str, Any]]  # library, class, what differs from its defaults
Model = tuple[str, dict[str, Part], dict[str, Any]]  # pipeline class, components, settings of the pipeline


def diffusers(cls: str, **values: Any) -> Part:
    return "diffusers", cls, values


def transformers(cls: str, **values: Any) -> Part:
    return "transformers", cls, values


# Tokenizers have files of their own, which are not kept here.
CLIP_TOKENIZER, T5_TOKENIZER = transformers("CLIPTokenizer"), transformers("T5TokenizerFast")
QWEN_TOKENIZER, LLAMA_TOKENIZER = transformers("Qwen2Tokenizer"), transformers("LlamaTokenizerFast")
CLIP_IMAGES = transformers("CLIPImageProcessor", size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
QWEN_IMAGES = transformers(
    "Qwen2VLProcessor", image_processor_type="Qwen2VLImageProcessor", min_pixels=3136, max_pixels=12845056,
    patch_size=14, temporal_patch_size=2, merge_size=2,
)  # fmt: skip

CLIP_L = transformers(
    "CLIPTextModel", hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    projection_dim=768,
)  # fmt: skip
CLIP_BIG_G = transformers(
    "CLIPTextModelWithProjection", hidden_size=1280, intermediate_size=5120, num_hidden_layers=32,
    num_attention_heads=20, projection_dim=1280, hidden_act="gelu",
)  # fmt: skip
CLIP_VISION_H = transformers(
    "CLIPVisionModel", hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16,
    patch_size=14, projection_dim=1024, hidden_act="gelu",
)  # fmt: skip
XXL: dict[str, Any] = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}  # fmt: skip
T5_XXL = transformers("T5EncoderModel", **XXL)
UMT5_XXL = transformers("UMT5EncoderModel", vocab_size=256384, **XXL)
BYT5_SMALL = transformers(
    "T5EncoderModel", vocab_size=384, d_model=1472, d_ff=3584, num_layers=12, num_heads=6,
    feed_forward_proj="gated-gelu",
)  # fmt: skip
LLAMA_8B = transformers(
    "LlamaModel", vocab_size=128320, intermediate_size=14336, num_key_value_heads=8, max_position_embeddings=8192,
    rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
)  # fmt: skip
QWEN3: dict[str, Any] = {
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}  # fmt: skip
QWEN3_2B = QWEN3 | {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_4B = QWEN3 | {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_8B = QWEN3 | {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
}  # fmt: skip
QWEN_VL_7B = transformers(
    "Qwen2_5_VLForConditionalGeneration",
    text_config={
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
    },
    vision_config={
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    },
)  # fmt: skip
MISTRAL_24B = transformers(
    "Mistral3ForConditionalGeneration",
    text_config={
        "vocab_size": 131072, "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "sliding_window": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000000.0},
    },
    vision_config={"image_size": 1540, "patch_size": 14},
)  # fmt: skip
# Its own vision vocabulary is larger by 128 marks, which no trained model draws where an image token belongs.
GLM_AR = transformers(
    "GlmImageForConditionalGeneration",
    text_config={
        "vision_vocab_size": 16384,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12],
        },
    },
    vision_config={},
    vq_config={},
)  # fmt: skip

FOUR_DOWN, FOUR_UP = ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4
KL: dict[str, Any] = {"down_block_types": FOUR_DOWN, "up_block_types": FOUR_UP, "sample_size": 1024}
NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}
KL_WIDTHS = KL | {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
FLUX_VAE = diffusers(
    "AutoencoderKL", **KL_WIDTHS, **NO_QUANT, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159
)
SD3_VAE = diffusers(
    "AutoencoderKL", **KL_WIDTHS, **NO_QUANT, latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609
)
SDXL_VAE = diffusers("AutoencoderKL", **KL_WIDTHS, latent_channels=4, scaling_factor=0.13025, force_upcast=True)
GLM_VAE = diffusers(
    "AutoencoderKL", **KL, **NO_QUANT, block_out_channels=[128, 512, 1024, 1024], layers_per_block=3,
    mid_block_add_attention=False, latent_channels=16, latents_mean=[0.0] * 16, latents_std=[1.0] * 16,
)  # fmt: skip
WAN_VAE = diffusers("AutoencoderKLWan")
WAN_5B_VAE = diffusers(
    "AutoencoderKLWan", base_dim=160, decoder_base_dim=256, z_dim=48, is_residual=True, in_channels=12,
    out_channels=12, patch_size=2, scale_factor_spatial=16,
    latents_mean=[
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
        0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
        -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ],
    latents_std=[
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
        0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
        0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ],
)  # fmt: skip


def flow(**values: Any) -> Part:
    return diffusers("FlowMatchEulerDiscreteScheduler", **values)


FLUX_FLOW = flow(shift=3.0, use_dynamic_shifting=True)
QWEN_FLOW = flow(use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02)
GLM_FLOW = flow(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear")


def unipc(shift: float) -> Part:
    return diffusers(
        "UniPCMultistepScheduler", prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def flux(scheduler: Part, guidance: bool) -> Model:
    transformer = diffusers("FluxTransformer2DModel", guidance_embeds=guidance)
    parts = {
        "scheduler": scheduler, "vae": FLUX_VAE, "text_encoder": CLIP_L, "tokenizer": CLIP_TOKENIZER,
        "text_encoder_2": T5_XXL, "tokenizer_2": T5_TOKENIZER, "transformer": transformer,
    }  # fmt: skip
    return "FluxPipeline", parts, {}


def one_encoder(pipeline: str, scheduler: Part, vae: Part, encoder: Part, transformer: Part, **settings: Any) -> Model:
    parts = {
        "scheduler": scheduler, "vae": vae, "text_encoder": encoder, "tokenizer": QWEN_TOKENIZER,
        "transformer": transformer,
    }  # fmt: skip
    return pipeline, parts, settings


def klein(encoder: dict[str, Any], distilled: bool, **values: Any) -> Model:
    transformer = diffusers("Flux2Transformer2DModel", guidance_embeds=False, **values)
    encoder_part = transformers("Qwen3ForCausalLM", **encoder)
    vae = diffusers("AutoencoderKLFlux2")
    return one_encoder("Flux2KleinPipeline", FLUX_FLOW, vae, encoder_part, transformer, is_distilled=distilled)


KLEIN_4B = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}
KLEIN_9B = {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}


def flux2() -> Model:
    transformer, vae = diffusers("Flux2Transformer2DModel"), diffusers("AutoencoderKLFlux2")
    pipeline, parts, settings = one_encoder("Flux2Pipeline", FLUX_FLOW, vae, MISTRAL_24B, transformer)
    return pipeline, parts | {"tokenizer": transformers("PixtralProcessor")}, settings


def z_image(shift: float) -> Model:
    encoder, transformer = transformers("Qwen3Model", **QWEN3_4B), diffusers("ZImageTransformer2DModel")
    return one_encoder("ZImagePipeline", flow(shift=shift), FLUX_VAE, encoder, transformer)


def ovis() -> Model:
    encoder, transformer = transformers("Qwen3Model", **QWEN3_2B), diffusers("OvisImageTransformer2DModel")
    return one_encoder("OvisImagePipeline", FLUX_FLOW, FLUX_VAE, encoder, transformer)


def qwen(pipeline: str = "QwenImagePipeline", edits: bool = False, **values: Any) -> Model:
    transformer, vae = diffusers("QwenImageTransformer2DModel", **values), diffusers("AutoencoderKLQwenImage")
    name, parts, settings = one_encoder(pipeline, QWEN_FLOW, vae, QWEN_VL_7B, transformer)
    return name, parts | ({"processor": QWEN_IMAGES} if edits else {}), settings


def glm() -> Model:
    transformer = diffusers("GlmImageTransformer2DModel", num_attention_heads=32, attention_head_dim=128)
    parts = {
        "tokenizer": transformers("ByT5Tokenizer"), "processor": transformers("GlmImageProcessor"),
        "text_encoder": BYT5_SMALL, "vision_language_encoder": GLM_AR, "vae": GLM_VAE, "transformer": transformer,
        "scheduler": GLM_FLOW,
    }  # fmt: skip
    return "GlmImagePipeline", parts, {}


WAN_1B = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
WAN_5B = {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48}
WAN_I2V = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}


def wan(
    pipeline: str,
    shift: float,
    values: dict[str, Any],
    vae: Part = WAN_VAE,
    sees: bool = False,
    boundary: float | None = None,
    expand: bool = False,
) -> Model:
    network = diffusers("WanTransformer3DModel", **values)
    parts = {
        "tokenizer": T5_TOKENIZER, "text_encoder": UMT5_XXL, "vae": vae, "scheduler": unipc(shift),
        "transformer": network,
    }  # fmt: skip
    if boundary is not None:
        parts["transformer_2"] = network
    if sees:
        parts |= {"image_encoder": CLIP_VISION_H, "image_processor": CLIP_IMAGES}
    return pipeline, parts, {"boundary_ratio": boundary, "expand_timesteps": expand}


def hunyuan(shift: float) -> Model:
    parts = {
        "text_encoder": LLAMA_8B, "tokenizer": LLAMA_TOKENIZER, "text_encoder_2": CLIP_L,
        "tokenizer_2": CLIP_TOKENIZER, "transformer": diffusers("HunyuanVideoTransformer3DModel"),
        "vae": diffusers("AutoencoderKLHunyuanVideo"), "scheduler": flow(shift=shift),
    }  # fmt: skip
    return "HunyuanVideoPipeline", parts, {}


def sd3() -> Model:
    transformer = diffusers(
        "SD3Transformer2DModel", num_layers=38, num_attention_heads=38, attention_head_dim=64, pos_embed_max_size=192,
        dual_attention_layers=[], qk_norm="rms_norm", caption_projection_dim=2432, pooled_projection_dim=2048,
        in_channels=16, out_channels=16, patch_size=2, joint_attention_dim=4096,
    )  # fmt: skip
    clip_l = transformers("CLIPTextModelWithProjection", **CLIP_L[2])
    parts = {
        "scheduler": flow(shift=3.0), "vae": SD3_VAE, "text_encoder": clip_l, "tokenizer": CLIP_TOKENIZER,
        "text_encoder_2": CLIP_BIG_G, "tokenizer_2": CLIP_TOKENIZER, "text_encoder_3": T5_XXL,
        "tokenizer_3": T5_TOKENIZER, "transformer": transformer,
    }  # fmt: skip
    return "StableDiffusion3Pipeline", parts, {}


def sdxl() -> Model:
    unet = diffusers(
        "UNet2DConditionModel", sample_size=128, block_out_channels=[320, 640, 1280], layers_per_block=2,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], cross_attention_dim=2048,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    scheduler = diffusers(
        "EulerDiscreteScheduler", beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        timestep_spacing="leading", steps_offset=1,
    )  # fmt: skip
    parts = {
        "vae": SDXL_VAE, "text_encoder": CLIP_L, "text_encoder_2": CLIP_BIG_G, "tokenizer": CLIP_TOKENIZER,
        "tokenizer_2": CLIP_TOKENIZER, "unet": unet, "scheduler": scheduler,
    }  # fmt: skip
    return "StableDiffusionXLPipeline", parts, {"force_zeros_for_empty_prompt": True}


MODELS: dict[str, Model] = {
    "FLUX.1-dev": flux(FLUX_FLOW, True),
    "FLUX.1-schnell": flux(flow(shift=1.0), False),
    "FLUX.2-dev": flux2(),
    "FLUX.2-klein-4B": klein(QWEN3_4B, True, **KLEIN_4B),
    "FLUX.2-klein-base-4B": klein(QWEN3_4B, False, **KLEIN_4B),
    "FLUX.2-klein-9B": klein(QWEN3_8B, True, **KLEIN_9B),
    "FLUX.2-klein-base-9B": klein(QWEN3_8B, False, **KLEIN_9B),
    "Z-Image": z_image(6.0),
    "Z-Image-Turbo": z_image(3.0),
    "GLM-Image": glm(),
    "Qwen-Image": qwen(),
    "Qwen-Image-2512": qwen(),
    "Qwen-Image-Edit": qwen("QwenImageEditPipeline", edits=True),
    "Qwen-Image-Edit-2509": qwen("QwenImageEditPlusPipeline", edits=True),
    "Qwen-Image-Edit-2511": qwen("QwenImageEditPlusPipeline", edits=True, zero_cond_t=True),
    "Wan2.1-T2V-1.3B-Diffusers": wan("WanPipeline", 3.0, WAN_1B),
    "Wan2.1-T2V-14B-Diffusers": wan("WanPipeline", 3.0, {}),
    "Wan2.1-I2V-14B-480P-Diffusers": wan("WanImageToVideoPipeline", 3.0, WAN_I2V, sees=True),
    "Wan2.1-I2V-14B-720P-Diffusers": wan("WanImageToVideoPipeline", 3.0, WAN_I2V, sees=True),
    "Wan2.2-T2V-A14B-Diffusers": wan("WanPipeline", 3.0, {}, boundary=0.875),
    "Wan2.2-I2V-A14B-Diffusers": wan("WanImageToVideoPipeline", 3.0, {"in_channels": 36}, boundary=0.9),
    "Wan2.2-TI2V-5B-Diffusers": wan("WanPipeline", 5.0, WAN_5B, WAN_5B_VAE, expand=True),
    "FastWan2.1-T2V-1.3B-Diffusers": wan("WanDMDPipeline", 8.0, WAN_1B),
    "FastWan2.2-TI2V-5B-FullAttn-Diffusers": wan("WanDMDPipeline", 5.0, WAN_5B, WAN_5B_VAE, expand=True),
    "HunyuanVideo": hunyuan(7.0),
    "FastHunyuan-diffusers": hunyuan(17.0),
    "Ovis-Image-7B": ovis(),
    "stable-diffusion-3.5-large": sd3(),
    "stable-diffusion-xl-base-1.0": sdxl(),
}


def _complete(library: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return every constructor argument of a class of diffusers, or the whole config of one of transformers."""
    cls = getattr(importlib.import_module(library), name)
    if library == "transformers":
        config = cls.config_class(**values).to_diff_dict()
        return {"architectures": [name], **{key: value for key, value in config.items() if key != VERSION}}
    known = inspect.signature(cls.__init__).parameters
    unknown = set(values) - set(known)
    assert not unknown, f"{name} has no {unknown}"
    empty = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    defaults = {key: entry.default for key, entry in known.items() if key != "self" and entry.kind not in empty}
    return {"_class_name": name, **{key: value for key, value in (defaults | values).items() if value is not None}}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write(name: str, model: Model) -> None:
    """Write the folder of one model: its index, and a config for each component that has one."""
    pipeline, parts, settings = model
    index: dict[str, Any] = {"_class_name": pipeline, **settings}
    for key, (library, cls, values) in parts.items():
        index[key] = [library, cls]
        if library == "diffusers":
            file = "scheduler_config.json" if key == "scheduler" else "config.json"
            _write(FOLDER / name / key / file, _complete(library, cls, values))
        elif "Processor" in cls and values:
            _write(FOLDER / name / key / "preprocessor_config.json", {"image_processor_type": cls, **values})
        elif "Processor" not in cls and "Tokenizer" not in cls:
            _write(FOLDER / name / key / "config.json", _complete(library, cls, values))
    _write(FOLDER / name / "model_index.json", index)


def main() -> int:
    """Write every folder anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, model in MODELS.items():
        write(name, model)
    print(f"{FOLDER.relative_to(ROOT)}: {len(MODELS)} models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
