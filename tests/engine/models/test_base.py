"""The default verbs of a family."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.configuration_utils import FrozenDict

from engine.catalog import MODELS
from engine.models.base import BaseModel, like, scale, unscale
from engine.types import Request

MODEL = BaseModel(MODELS[0], {})


def test_guidance_is_the_formula() -> None:
    state: Any = SimpleNamespace(request=Request(true_cfg_scale=3.0))
    cond, uncond = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert MODEL.guide(state, cond, uncond).tolist() == [3.0, -2.0]
    assert MODEL.guide(state, cond, None) is cond


@pytest.mark.parametrize(("asked", "grid"), [((64, 64), (64, 64)), ((65, 50), (80, 64)), ((1, 1), (16, 16))])
def test_the_grid_is_rounded_up(asked: tuple[int, int], grid: tuple[int, int]) -> None:
    assert MODEL.grid(Request(height=asked[0], width=asked[1])) == grid


def test_like_follows_a_tensor_or_a_network() -> None:
    tensor = torch.ones(2)
    assert like(tensor, torch.ones(1, dtype=torch.float64)).dtype is torch.float64
    assert like(tensor, torch.nn.Linear(1, 1).bfloat16()).dtype is torch.bfloat16


def test_like_follows_a_network_to_where_it_computes() -> None:
    class Streamed(torch.nn.Linear):
        device = torch.device("meta")  # its weights are at home in host memory

    assert like(torch.ones(2), Streamed(1, 1)).is_meta


@pytest.mark.parametrize(
    ("config", "scaled"),
    [
        ({"scaling_factor": 0.5, "shift_factor": 1.0}, [0.5, 1.0]),
        ({"scaling_factor": 0.5}, [1.0, 1.5]),
        ({"latents_mean": [1.0, 5.0], "latents_std": [0.5, 2.0]}, [2.0, -1.0]),
    ],
    ids=["shift", "factor", "statistics"],
)
def test_latents_come_into_the_networks_scale_and_back(config: dict[str, Any], scaled: list[float]) -> None:
    vae: Any = SimpleNamespace(config=FrozenDict(config))
    latents = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)
    assert scale(latents, vae).flatten().tolist() == scaled
    assert torch.equal(unscale(scale(latents, vae), vae), latents)


def test_a_family_without_a_verb_says_so() -> None:
    state: Any = None
    with pytest.raises(TypeError, match="BaseModel must say how a prompt is encoded"):
        MODEL.conditioning(state, "x")


def test_the_clean_latents_of_a_run_that_starts_from_an_image_use_its_own_sigma() -> None:
    scheduler = SimpleNamespace(sigmas=torch.tensor([1.0, 0.8, 0.5, 0.0]), begin_index=1)
    state: Any = SimpleNamespace(scheduler=scheduler, step=1, latents=torch.tensor([2.0]))
    assert MODEL.clean(state, torch.tensor([1.0])).tolist() == [1.5]


def test_a_clip_is_shown_by_its_middle_frame() -> None:
    vae: Any = SimpleNamespace(config=FrozenDict({"scaling_factor": 1.0}))
    model = BaseModel(MODELS[0], {"vae": vae})
    frames = torch.arange(5.0).view(1, 1, 5, 1, 1)
    assert model.latent_image(SimpleNamespace(), frames).tolist() == [[[[2.0]]]]  # type: ignore[arg-type]
