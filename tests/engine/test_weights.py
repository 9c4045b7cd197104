"""Files fill modules without a detour: the same tensors as the library's own loading, or a clear refusal."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import env, loader, weights
from engine.config import EngineConfig
from engine.engine import spec_of
from engine.errors import ModelError

CPU = torch.device("cpu")


def _read(cls: Any, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    module = weights.skeleton(cls, weights.config_of(cls, folder), dtype)
    tensors = weights.stored(folder)
    assert tensors is not None
    assert weights.differences(module, tensors) == ([], [])
    with ThreadPoolExecutor(2) as pool:
        weights.read(module, tensors, dtype, CPU, pool)()
    return module.eval()


def _cls(folder: Path) -> Any:
    import diffusers

    return getattr(diffusers, json.loads((folder / "config.json").read_text())["_class_name"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("part", ["flux/transformer", "flux/vae", "wan/transformer", "sdxl/unet"])
def test_what_is_read_is_what_the_library_reads(part: str, dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    family, name = part.split("/")
    folder = request.getfixturevalue(f"{family}_folder") / name
    own, theirs = _read(_cls(folder), folder, dtype), _cls(folder).from_pretrained(folder, dtype=dtype)
    expected = theirs.state_dict()
    assert own.state_dict().keys() == expected.keys()
    for key, tensor in own.state_dict().items():
        assert tensor.dtype == expected[key].dtype
        assert torch.equal(tensor, expected[key]), key
    tables = dict(theirs.named_buffers())
    assert all(torch.equal(buffer, tables[key]) for key, buffer in own.named_buffers())


def test_several_files_and_several_buffers(flux_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = flux_folder / "transformer"
    whole = _cls(folder).from_pretrained(folder)
    whole.save_pretrained(tmp_path / "split", max_shard_size="200KB")
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 3
    monkeypatch.setattr(weights, "BUFFER", 1000)
    read = _read(_cls(folder), tmp_path / "split", torch.float32)
    assert all(torch.equal(tensor, whole.state_dict()[key]) for key, tensor in read.state_dict().items())


def test_saved_statistics_are_read_too(tmp_path: Path) -> None:
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4)
    vae.bn.running_var.fill_(7.0)
    vae.save_pretrained(tmp_path)
    assert (_read(AutoencoderKLFlux2, tmp_path, torch.float32).bn.running_var == 7).all()  # type: ignore[union-attr]


def test_a_file_of_another_layout_does_not_fit(flux_folder: Path) -> None:
    folder = flux_folder / "vae"
    module = weights.skeleton(_cls(folder), weights.config_of(_cls(folder), folder), torch.float32)
    tensors = weights.stored(folder)
    assert tensors is not None
    first = next(iter(tensors))
    renamed = {("old." + name if name == first else name): tensor for name, tensor in tensors.items()}
    assert weights.differences(module, renamed) == ([first], ["old." + first])


def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as on a CUDA device, though onto the CPU."""
    monkeypatch.setattr(loader, "_is_direct", lambda part, config: part.is_module and weights.is_diffusers(part.cls))


def test_the_loader_reads_components_side_by_side(flux_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = EngineConfig(model_path=str(flux_folder))
    source, spec = spec_of(config, env.read())
    expected = loader.load(source, spec, config)
    _direct(monkeypatch)
    found = loader.load(source, spec, config)
    assert list(found) == list(expected)
    for name in ("transformer", "vae", "text_encoder_2"):
        state = expected[name].state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in found[name].state_dict().items())
        assert not any(parameter.requires_grad for parameter in found[name].parameters())


@pytest.mark.parametrize("harm", ["cut", "broken"])
def test_a_harmed_file_names_the_component(
    harm: str, flux_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "harmed"
    shutil.copytree(flux_folder, folder)
    (file,) = (folder / "vae").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000] if harm == "cut" else b"\x08\0\0\0\0\0\0\0{broken}")
    config = EngineConfig(model_path=str(folder))
    source, spec = spec_of(config, env.read())
    _direct(monkeypatch)
    with pytest.raises(ModelError, match=r"^vae: AutoencoderKL cannot be loaded: "):
        loader.load(source, spec, config)


def _file(path: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def _entry(kind: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"x": {"dtype": kind, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ([], "is damaged: its header cannot be read"),
        ({"x": []}, "is damaged: its header cannot be read"),
        ({"x": {"dtype": "F32", "shape": [2]}}, "is damaged: its header cannot be read"),
        (_entry(shape=3), "is damaged: its header cannot be read"),
        (_entry(offsets=(0, "y")), "is damaged: its header cannot be read"),
        (_entry(offsets=(8, 0)), "is damaged: 'x' is not within the file"),
        (_entry(shape=(200,), offsets=(0, 800)), "is damaged: 'x' is not within the file"),
        (_entry(shape=(-1,)), "is damaged: 'x' is not within the file"),
        (_entry(shape=(1,)), "is damaged: the size of 'x' is not that of its shape"),
        (_entry("F8_E4M3", (8,)), "holds F8_E4M3, which cannot be read here; known: F64, F32"),
    ],
)
def test_a_header_that_does_not_fit_its_file(header: object, problem: str, tmp_path: Path) -> None:
    path = _file(tmp_path / "x.safetensors", header, b"\0" * 8)
    with pytest.raises(ValueError, match=r"x\.safetensors") as caught:
        weights.stored(path)
    assert str(caught.value).startswith(f"{path} {problem}")


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0\xff{broken"])
def test_what_is_no_safetensors_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for read in (weights.stored, weights.check):
        with pytest.raises(ValueError, match=r"x.safetensors is damaged: it"):
            read(path)


def test_a_check_takes_every_precision(tmp_path: Path) -> None:
    weights.check(_file(tmp_path / "x.safetensors", _entry("F8_E4M3", (8,)), b"\0" * 8))


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(2, 3, bias=False)
        self.two.weight = self.one.weight


def test_names_shapes_and_ties_decide_what_differs(tmp_path: Path) -> None:
    def tensor(*shape: int) -> weights.Stored:
        return weights.Stored(tmp_path, torch.float32, shape, 0, 0)

    assert weights.differences(Tied(), {"two.weight": tensor(3, 2)}) == ([], []), "one of two names is enough"
    assert weights.differences(Tied(), {"one.weight": tensor(2, 3)}) == (["one.weight"], []), "of another shape"
    assert weights.differences(Tied(), {}) == (["one.weight", "two.weight"], [])
    given = {"one.weight": tensor(3, 2), "gate.x": tensor(1)}
    assert weights.differences(Tied(), given) == ([], ["gate.x"])
    assert weights.differences(Tied(), given, ["^gate"]) == ([], [])
