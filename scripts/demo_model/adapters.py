"""LoRA weights for tiny-scenes: which linear layers, how they act, and how each file layout names them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# FLUX.1's own names of the linear layers in a block, and the diffusers layers that each one holds, top rows first.
DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
}
SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
RANK = {"kohya": 10, "comfyui": 10, "diffusers": 9}  # fused layers share their A, which leaves room for more rank


@dataclass(frozen=True)
class Layer:
    """What one pair of LoRA matrices changes: one linear layer, or several that share their input."""

    name: str
    parts: tuple[str, ...]
    inner: int
    rows: tuple[int, ...]


def layers(net: nn.Module, layout: str) -> list[Layer]:
    """Every linear layer in the blocks, fused as `layout` fuses them."""
    found = []
    kinds = (("double_blocks", "transformer_blocks", DOUBLE), ("single_blocks", "single_transformer_blocks", SINGLE))
    for own, stock, table in kinds:
        for i in range(len(net.get_submodule(stock))):
            for name, parts in table.items():
                paths = [f"{stock}.{i}.{part}" for part in parts]
                groups = [[p] for p in paths] if layout == "diffusers" else [paths]
                for group in groups:
                    linear = [net.get_submodule(p) for p in group]
                    rows = tuple(int(m.weight.shape[0]) for m in linear)
                    label = group[0] if layout == "diffusers" else f"{own}.{i}.{name}"
                    found.append(Layer(label, tuple(group), int(linear[0].weight.shape[1]), rows))
    return found


class Lora(nn.Module):
    """The two matrices of every layer; B starts at zero, so that training starts at the base model."""

    def __init__(self, net: nn.Module, layout: str, rank: int, seed: int) -> None:
        super().__init__()
        self.layout, self.rank, self.alpha = layout, rank, float(rank)
        self.layers = layers(net, layout)
        source = torch.Generator().manual_seed(seed)
        self.a, self.b = nn.ParameterList(), nn.ParameterList()
        for layer in self.layers:
            start = torch.randn(rank, layer.inner, generator=source) / math.sqrt(layer.inner)
            self.a.append(nn.Parameter(start))
            self.b.append(nn.Parameter(torch.zeros(sum(layer.rows), rank)))

    def weights(self, base: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
        """The weights of the changed layers, by parameter name: W + strength * alpha / rank * B A."""
        scale, out = strength * self.alpha / self.rank, {}
        for layer, a, b in zip(self.layers, self.a, self.b, strict=True):
            for path, rows in zip(layer.parts, b.split(layer.rows), strict=True):
                name = f"{path}.weight"
                out[name] = base[name] + scale * (rows @ a)
        return out

    def _keys(self, layer: Layer) -> tuple[str, str]:
        """The names of a layer's A and B in the layout."""
        if self.layout == "kohya":
            name = "lora_unet_" + layer.name.replace(".", "_")
            return f"{name}.lora_down.weight", f"{name}.lora_up.weight"
        name = ("diffusion_model." if self.layout == "comfyui" else "transformer.") + layer.name
        return f"{name}.lora_A.weight", f"{name}.lora_B.weight"

    def tensors(self) -> dict[str, Tensor]:
        """What the file holds, in bf16 and under the names of the layout."""
        out: dict[str, Tensor] = {}
        for layer, a, b in zip(self.layers, self.a, self.b, strict=True):
            for key, w in zip(self._keys(layer), (a, b), strict=True):
                out[key] = w.detach().to(torch.bfloat16).cpu().contiguous()
            if self.layout == "kohya":
                name = self._keys(layer)[0].removesuffix(".lora_down.weight")
                out[f"{name}.alpha"] = torch.tensor(self.alpha, dtype=torch.bfloat16)
        return out

    def scaled(self, gain: float) -> Lora:
        """Itself, so that strength 1 is from now on what strength `gain` was."""
        with torch.no_grad():
            for b in self.b:
                b.mul_(gain)
        return self

    def read(self, path: Path) -> Lora:
        """Itself, with the matrices of a file that `save` wrote."""
        held = load_file(path)
        with torch.no_grad():
            for layer, a, b in zip(self.layers, self.a, self.b, strict=True):
                for key, w in zip(self._keys(layer), (a, b), strict=True):
                    w.copy_(held[key])
        return self

    def save(self, path: Path, name: str, title: str, notes: str) -> None:
        """Write the file, with what it says of itself."""
        metadata = {
            "format": "pt",
            "name": name,
            "modelspec.title": title,
            "modelspec.architecture": "flux-1/lora",
            "base_model": "tiny-scenes",
            "trigger_words": "",
            "notes": notes,
            "rank": str(self.rank),
            "alpha": f"{self.alpha:g}",
            "layout": self.layout,
        }
        if self.layout == "kohya":
            metadata |= {"ss_network_dim": str(self.rank), "ss_network_alpha": f"{self.alpha:g}"}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(), path, metadata=metadata)
