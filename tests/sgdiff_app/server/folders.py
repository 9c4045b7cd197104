"""Folders that describe video models and hold no weights: all that a server with the null worker needs."""

from __future__ import annotations

import json
from pathlib import Path

PARTS = {
    "transformer": ("diffusers", "WanTransformer3DModel"),
    "vae": ("diffusers", "AutoencoderKLWan"),
    "text_encoder": ("transformers", "UMT5EncoderModel"),
    "tokenizer": ("transformers", "T5Tokenizer"),
    "scheduler": ("diffusers", "UniPCMultistepScheduler"),
}
CONFIGS = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
KINDS = {
    "T2V": {"_class_name": "WanPipeline"},
    "I2V": {"_class_name": "WanImageToVideoPipeline"},
    "TI2V": {"_class_name": "WanPipeline", "expand_timesteps": True},
}


def video_model(folder: Path, kind: str) -> str:
    """Write the description of a T2V, I2V or TI2V model; return its path."""
    place = folder / kind.lower()
    for name, (_, cls) in PARTS.items():
        (place / name).mkdir(parents=True)
        (place / name / CONFIGS.get(name, "config.json")).write_text(json.dumps({"_class_name": cls}))
        if name not in CONFIGS:
            (place / name / "model.safetensors").touch()
    (place / "model_index.json").write_text(json.dumps({**KINDS[kind], **PARTS}))
    return str(place)
