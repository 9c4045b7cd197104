"""The graph that ComfyUI keeps in its pictures: read into request fields, as far as its nodes are known ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

SAMPLERS = ("KSampler", "SamplerCustom")  # the names of the nodes that draw begin so
SEEDS = ("seed", "noise_seed")
TEXTS = ("text", "text_g", "t5xxl", "clip_l", "prompt", "value", "string")
MODELS = ("ckpt_name", "unet_name", "model_name")
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "seed": SEEDS, "num_inference_steps": ("steps",), "guidance_scale": ("cfg",), "strength": ("denoise",),
}  # fmt: skip
SIDES = ("width", "height")
MOST = 2000  # nodes that are looked at
Node = Mapping[str, Any]


def parse(graph: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, list[str], list[tuple[str, float]]] | None:
    """Return the request fields, the model, what is left over, and the LoRAs; None when it is no such graph."""
    nodes = {str(key): value for key, value in graph.items() if isinstance(value, Mapping) and _inputs(value)}
    sampler = next((node for node in nodes.values() if _kind(node).startswith(SAMPLERS)), None)
    if sampler is None:
        return None
    above = [sampler, *_above(nodes, sampler)]
    fields = dict[str, Any]()
    for field, names in NUMBERS.items():
        value = _literal(above, names, int | float)
        if value is not None:
            fields[field] = value
    if fields.get("strength") == 1:
        del fields["strength"]  # from noise alone
    embedded = _literal(above, ("guidance",), int | float)
    if embedded is not None:
        fields["guidance_scale"] = embedded
    for side in SIDES:
        value = _literal(_from(nodes, sampler, "latent_image", "latent"), (side,), int)
        if value is not None:
            fields[side] = value
    prompt = _literal(_from(nodes, sampler, "positive", "guider", "conditioning"), TEXTS, str)
    negative = _literal(_from(nodes, sampler, "negative"), TEXTS, str)
    fields |= {name: text for name, text in (("prompt", prompt), ("negative_prompt", negative)) if text}
    model = _literal(above, MODELS, str)
    named = {name: _literal(above, (name,), str) for name in ("sampler_name", "scheduler")}
    return fields, _stem(model) if model else None, [f"{k}: {v}" for k, v in named.items() if v], list(_loras(above))


def _kind(node: Node) -> str:
    return str(node.get("class_type", ""))


def _inputs(node: Node) -> Mapping[str, Any]:
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}


def _linked(nodes: Mapping[str, Node], value: Any) -> Node | None:
    """Return the node that an input comes from; a link is a list of the node's name and the number of an output."""
    return nodes.get(str(value[0])) if isinstance(value, list) and len(value) == 2 else None


def _above(nodes: Mapping[str, Node], start: Node) -> Iterator[Node]:
    """Yield the nodes that one is fed by, the nearest first, each once."""
    seen, waiting = {id(start)}, deque([start])
    while waiting and len(seen) < MOST:
        for value in _inputs(waiting.popleft()).values():
            node = _linked(nodes, value)
            if node is not None and id(node) not in seen:
                seen.add(id(node))
                waiting.append(node)
                yield node


def _from(nodes: Mapping[str, Node], start: Node, *names: str) -> list[Node]:
    """Return the nodes behind the first of these inputs that is linked, the nearest first."""
    for name in names:
        node = _linked(nodes, _inputs(start).get(name))
        if node is not None:
            return [node, *_above(nodes, node)]
    return []


def _literal(nodes: list[Node], names: tuple[str, ...], kind: Any) -> Any:
    """Return the first input of one of these names that is a value and no link."""
    for node in nodes:
        for name in names:
            value = _inputs(node).get(name)
            if isinstance(value, kind) and not isinstance(value, bool):
                return value
    return None


def _loras(nodes: list[Node]) -> Iterator[tuple[str, float]]:
    for node in nodes:
        name, strength = _inputs(node).get("lora_name"), _inputs(node).get("strength_model", 1.0)
        if isinstance(name, str):
            yield _stem(name), float(strength) if isinstance(strength, int | float) else 1.0


def _stem(name: str) -> str:
    """Return the name of a model file without folders of either system and without its suffix."""
    return PurePosixPath(PureWindowsPath(name).as_posix()).stem
