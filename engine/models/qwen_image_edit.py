"""Qwen-Image-Edit, -2509 and -2511: pictures and an instruction to a picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as stock
from PIL import Image

from engine import log, media
from engine.catalog import ModelSpec
from engine.models import qwen_image
from engine.models.base import like
from engine.types import State

logger = log.get(__name__)

IMAGE_PAD = "<|image_pad|>"


class Model(qwen_image.Model):
    """The network sees the input pictures' latents beside its own; the text encoder sees the pictures too."""

    def __init__(self, spec: ModelSpec, components: dict[str, Any]) -> None:
        self.stock = QwenImageEditPlusPipeline if spec.max_images > 1 else QwenImageEditPipeline
        super().__init__(spec, components)
        self.helpers.processor = Inputs(components["processor"], components["tokenizer"])

    def conditioning(self, state: State, prompt: str) -> dict[str, Any]:
        pictures = [self._sized(picture, self._seen_area()) for picture in _pictures(state)]
        with vision_positions(self.components["text_encoder"]):
            return self.conditions(state, prompt=self._cut(state, prompt), image=pictures)

    def encode_image(self, state: State) -> None:
        """Write `reference`, and into the conditions where each of its tokens lies."""
        sized = [self._sized(picture, stock.VAE_IMAGE_SIZE) for picture in _pictures(state)]
        pixels = [self.helpers.image_processor.preprocess(picture) for picture in sized]
        encoded = [self.to_latents(like(one, self.components["vae"]), state.generator) for one in pixels]
        state.reference = torch.cat([self.pack(latents.to(self.network.dtype)) for latents in encoded], dim=1)
        shapes = [(1, latents.shape[2] // 2, latents.shape[3] // 2) for latents in encoded]
        for cond in filter(None, (state.cond, state.uncond)):
            cond["img_shapes"][0].extend(shapes)

    def _seen_area(self) -> int:
        """Return how many pixels of a picture the text encoder sees."""
        area: int = stock.CONDITION_IMAGE_SIZE if self.spec.max_images > 1 else stock.VAE_IMAGE_SIZE
        return area

    def _sized(self, picture: Image.Image, area: int) -> Image.Image:
        width, height = stock.calculate_dimensions(area, picture.width / picture.height)
        sized: Image.Image = self.helpers.image_processor.resize(picture, height, width)
        return sized

    def _cut(self, state: State, prompt: str) -> str:
        """Return at most `max_sequence_length` tokens of a prompt: the helpers of the editors do not bound it."""
        tokenizer, most = self.components["tokenizer"], state.request.max_sequence_length
        assert most is not None
        tokens = tokenizer(prompt)["input_ids"]
        if len(tokens) <= most:
            return prompt
        logger.warning("prompt: only the first %d of its %d tokens count", most, len(tokens))
        text: str = tokenizer.decode(tokens[:most])
        return text


class Inputs:
    """What a Qwen2VLProcessor makes of text and pictures, without its video half, which needs torchvision."""

    def __init__(self, images: Any, tokenizer: Any) -> None:
        self.images, self.tokenizer = images, tokenizer

    def __call__(self, text: Sequence[str], images: Sequence[Image.Image], **options: Any) -> Any:
        """Return token ids with one image-pad token per merged patch, and the pixels of the patches."""
        pixels = self.images(images=images, return_tensors=options["return_tensors"])
        counts = (int(grid.prod()) // self.images.merge_size**2 for grid in pixels["image_grid_thw"])
        padded = [re.sub(re.escape(IMAGE_PAD), lambda _: IMAGE_PAD * next(counts), entry) for entry in text]
        inputs = self.tokenizer(padded, **options)
        inputs.update(pixels)
        return inputs


@contextmanager
def vision_positions(encoder: Any) -> Iterator[None]:
    """Let a Qwen2.5-VL see where patches lie in their picture; without token types they would be in one line."""

    def add(module: Any, args: Any, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**given, "mm_token_type_ids": (given["input_ids"] == module.config.image_token_id).int()}

    hook = encoder.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _pictures(state: State) -> list[Image.Image]:
    return [media.open_image(source) for source in state.request.image_path or ()]
