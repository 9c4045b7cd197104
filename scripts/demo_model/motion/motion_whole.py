"""Wan's autoencoder over a whole clip at once: equal to diffusers' chunk by chunk, and fast enough to train.

Inside, clips are (n, frames, height, width, channels), so that norms run over the last axis and each convolution over
time and space can be one over space alone: the frames that it looks at are laid side by side as channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanMidBlock,
    WanResample,
    WanResidualBlock,
    WanRMS_norm,
)
from torch import Tensor, nn


def _activate(x: Tensor, gamma: Tensor) -> Tensor:
    """RMS norm over the last axis of (positions, channels), then SiLU."""
    return F.silu(F.normalize(x.float(), dim=-1) * gamma).to(x.dtype)


class How:
    """How the same sums are done: what `choose` and `compiled` settle for this process."""

    side_by_side = True  # frames as channels of a 2D convolution, or a 3D convolution
    activate: Callable[[Tensor, Tensor], Tensor] = staticmethod(_activate)


def compiled() -> None:
    """Fuse norm and activation; the convolutions are library calls anyway."""
    torch._dynamo.config.recompile_limit = 64  # one for each width, with gradients and without, in each precision
    fused = torch.compile(_activate)

    def call(x: Tensor, gamma: Tensor) -> Tensor:
        torch._dynamo.mark_dynamic(x, 0)
        return fused(x, gamma)

    How.activate = staticmethod(call)


def _activated(norm: WanRMS_norm, x: Tensor) -> Tensor:
    gamma = norm.gamma.flatten() * norm.scale
    return How.activate(x.reshape(-1, x.shape[-1]), gamma).view(x.shape)


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """A convolution over space of (n, t, h, w, c)."""
    n, t = x.shape[:2]
    y = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, stride, padding).permute(0, 2, 3, 1)
    return y.unflatten(0, (n, t))


def _causal(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A causal convolution over the whole clip, before which there is nothing: zeros."""
    before, (taps, height, _), step = conv._padding[4], conv.weight.shape[2:], conv.stride[0]
    if x.shape[1] == 1 and before == taps - 1:  # a single frame meets the last tap alone
        return _conv2d(x, conv.weight[:, :, -1], conv.bias, padding=height // 2)
    x = F.pad(x, (0, 0, 0, 0, 0, 0, before, 0)) if before else x
    if not How.side_by_side and taps > 1:
        y = F.conv3d(x.permute(0, 4, 1, 2, 3), conv.weight, conv.bias, conv.stride, (0, height // 2, height // 2))
        return y.permute(0, 2, 3, 4, 1).contiguous()
    last = step * ((x.shape[1] - taps) // step) + 1
    side = torch.cat([x[:, i : i + last : step] for i in range(taps)], -1) if taps > 1 else x
    weight = conv.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
    return _conv2d(side, weight, conv.bias, padding=height // 2)


def _residual(block: WanResidualBlock, x: Tensor) -> Tensor:
    short = x if isinstance(block.conv_shortcut, nn.Identity) else _causal(block.conv_shortcut, x)
    x = _causal(block.conv1, _activated(block.norm1, x))
    return _causal(block.conv2, _activated(block.norm2, x)) + short


def _attention(block: WanAttentionBlock, x: Tensor) -> Tensor:
    """Attention within each frame."""
    norm, c = block.norm, x.shape[-1]
    h = (F.normalize(x.float(), dim=-1) * (norm.gamma.flatten() * norm.scale)).to(x.dtype)
    qkv = F.linear(h, block.to_qkv.weight.flatten(1), block.to_qkv.bias).flatten(0, 1).flatten(1, 2)
    q, k, v = qkv.unsqueeze(1).split(c, -1)
    y = F.scaled_dot_product_attention(q, k, v).squeeze(1).view(x.shape)
    return x + F.linear(y, block.proj.weight.flatten(1), block.proj.bias)


def _middle(block: WanMidBlock, x: Tensor) -> Tensor:
    x = _residual(block.resnets[0], x)
    for attention, residual in zip(block.attentions, block.resnets[1:], strict=True):
        x = _residual(residual, _attention(attention, x))
    return x


def _resample(block: WanResample, x: Tensor) -> Tensor:
    """Halve or double the size; where time goes along, the first frame stays one frame."""
    if block.mode == "upsample3d":
        first, rest = x[:, :1], x[:, 1:]
        if rest.shape[1]:
            y = _causal(block.time_conv, rest)
            y = y.unflatten(-1, (2, x.shape[-1])).movedim(-2, 2).flatten(1, 2)
            x = torch.cat([first, y], 1)
    conv = block.resample[1]
    if block.mode.startswith("up"):
        n, t, h, w, c = x.shape
        x = x[:, :, :, None, :, None].expand(n, t, h, 2, w, 2, c).reshape(n, t, 2 * h, 2 * w, c)
        return _conv2d(x, conv.weight, conv.bias, padding=1)
    x = _conv2d(F.pad(x, (0, 0, 0, 1, 0, 1)), conv.weight, conv.bias, stride=2)
    if block.mode == "downsample3d" and x.shape[1] > 1:
        x = torch.cat([x[:, :1], _causal(block.time_conv, x)], 1)
    return x


@torch.no_grad()
def inflate(vae: AutoencoderKLWan) -> None:
    """Make of an autoencoder that learnt single frames one of clips that treats each frame as it did the single one:
    taps before the last are zero, frames that are dropped on the way down come back as copies of the one kept."""
    for name, conv in vae.named_modules():
        if not isinstance(conv, nn.Conv3d) or conv.weight.shape[2] == 1:
            continue
        conv.weight[:, :, :-1] = 0
        if name.endswith("time_conv"):
            conv.weight.zero_()
            conv.bias.zero_()
            eye = torch.eye(conv.weight.shape[1], device=conv.weight.device)
            conv.weight[:, :, -1, 0, 0] = eye.repeat(conv.weight.shape[0] // conv.weight.shape[1], 1)


def encode(vae: AutoencoderKLWan, clips: Tensor) -> Tensor:
    """Mean and log variance (n, 2 * 16, t, h, w) of clips (n, 3, frames, height, width) in -1..1."""
    net = vae.encoder
    x = _causal(net.conv_in, clips.permute(0, 2, 3, 4, 1).contiguous())
    for block in net.down_blocks:
        x = _resample(block, x) if isinstance(block, WanResample) else _residual(block, x)
    x = _activated(net.norm_out, _middle(net.mid_block, x))
    return _causal(vae.quant_conv, _causal(net.conv_out, x)).permute(0, 4, 1, 2, 3)


def decode(vae: AutoencoderKLWan, z: Tensor) -> Tensor:
    """Clips of latents, not clamped."""
    net = vae.decoder
    x = _causal(net.conv_in, _causal(vae.post_quant_conv, z.permute(0, 2, 3, 4, 1).contiguous()))
    x = _middle(net.mid_block, x)
    for block in net.up_blocks:
        for residual in block.resnets:
            x = _residual(residual, x)
        if block.upsamplers is not None:
            x = _resample(block.upsamplers[0], x)
    return _causal(net.conv_out, _activated(net.norm_out, x)).permute(0, 4, 1, 2, 3)


def choose(vae: AutoencoderKLWan, clips: Tensor) -> str:
    """Time both kinds of convolution on this device and stay with the faster."""
    spent = {}
    for side_by_side in (True, False):
        How.side_by_side = side_by_side
        for tries in (2, 3):
            torch.cuda.synchronize()
            begin = time.time()
            for _ in range(tries):
                with torch.autocast("cuda", torch.bfloat16):
                    loss = decode(vae, encode(vae, clips)[:, : vae.config.z_dim]).float().square().mean()
                loss.backward()
            torch.cuda.synchronize()
            spent[side_by_side] = (time.time() - begin) / tries
    vae.zero_grad(set_to_none=True)
    How.side_by_side = spent[True] <= spent[False]
    return f"side by side {spent[True] * 1e3:.0f} ms, 3D {spent[False] * 1e3:.0f} ms a batch"


@torch.no_grad()
def check(vae: AutoencoderKLWan, clips: Tensor) -> float:
    """The largest difference from diffusers' own encode and decode, both ways of convolving."""
    moments, worst = vae._encode(clips), 0.0
    z = moments[:, : vae.config.z_dim]
    shown = vae.decode(z).sample
    for How.side_by_side in (False, True):
        worst = max(worst, (encode(vae, clips) - moments).abs().max().item())
        worst = max(worst, (decode(vae, z).clamp(-1, 1) - shown).abs().max().item())
    return worst
