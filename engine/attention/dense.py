"""Exact attention on torch's own kernels. Tensors are (batch, sequence, heads, head_dim)."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def torch_sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Scaled dot-product attention with the kernel that torch picks; a 2-D mask is (batch, keys)."""
    if attn_mask is not None and attn_mask.ndim == 2:
        attn_mask = attn_mask[:, None, None, :]
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    out = scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )
    return out.transpose(1, 2)


def torch_cudnn_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: object, **kwargs: object
) -> torch.Tensor:
    """The same through cuDNN's kernel alone (CUDA, fp16 or bf16)."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return torch_sdpa(query, key, value, *args, **kwargs)  # type: ignore[arg-type]
