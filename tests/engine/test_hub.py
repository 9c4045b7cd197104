"""From a name to checked local files, without network: the hub client is replaced, its exceptions are the real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from engine import hub, remote
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import ModelError, SgdiffError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OWNER = "someone/pictures"
INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.42.1",
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_model(folder: Path, guidance: bool = True) -> Path:
    files = {
        "model_index.json": json.dumps(INDEX),
        "scheduler/scheduler_config.json": '{"shift": 3.0}',
        "transformer/config.json": json.dumps({"guidance_embeds": guidance}),
        "transformer/diffusion_pytorch_model.safetensors": "weights",
        "vae/config.json": '{"latent_channels": 16}',
        "vae/diffusion_pytorch_model.safetensors": "weights of the vae",
    }
    for name, text in files.items():
        write(folder / name, text)
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Hub:
    """Repositories as folders, answered as the client would: by patterns, into one folder per commit."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.calls: list[dict[str, Any]] = []

    def repo(self, name: str) -> Path:
        return self.place / "remote" / name

    def snapshot_download(self, repo_id: str, **given: Any) -> Any:
        self.calls.append({"repo": repo_id, **given})
        source, cache = self.repo(repo_id), self.place / "cache" / repo_id / "snapshots" / COMMIT
        wanted = list(
            filter_repo_objects(
                names(source), allow_patterns=given["allow_patterns"], ignore_patterns=given["ignore_patterns"]
            )
        )
        if given.get("dry_run"):
            return [
                SimpleNamespace(
                    filename=name,
                    file_size=(source / name).stat().st_size,
                    is_cached=(cache / name).exists(),
                    will_download=not (cache / name).exists(),
                    local_path=str(cache / name),
                    commit_hash=COMMIT,
                )
                for name in wanted
            ]
        cache.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            (cache / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, cache / name)
        return str(cache)

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str, cache_dir: str) -> str:
        return str(shutil.copyfile(self.repo(repo_id) / filename, Path(cache_dir) / filename))


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.hf_hub_download)
    return fake


def locate(model: str | Path, *, offline_variable: bool = False, **config: Any) -> hub.Source:
    environment = Environment(cache_root=Path("unused"), hub_offline=offline_variable)
    return hub.locate(EngineConfig(model_path=str(model), **config), environment)


def plan(model: str | Path, **config: Any) -> hub.Plan:
    return hub.plan(EngineConfig(model_path=str(model), **config), Environment(cache_root=Path("unused")))


def message(action: Callable[[], Any], kind: type[SgdiffError] = ModelError) -> str:
    with pytest.raises(SgdiffError) as caught:
        action()
    assert type(caught.value) is kind or isinstance(caught.value, kind)
    return caught.value.message


# --- local folders


def test_a_local_folder_is_read_and_matched_by_its_configs(tmp_path: Path) -> None:
    source = locate(write_model(tmp_path / "mine", guidance=False))
    assert (source.name, source.folder) == (str(tmp_path / "mine"), tmp_path / "mine")
    assert source.revision is None
    assert source.index == INDEX
    assert source.configs["scheduler"] == {"shift": 3.0}
    assert source.configs["vae"] == {"latent_channels": 16}
    assert source.spec is not None
    assert source.spec.id == "black-forest-labs/FLUX.1-schnell"
    assert source.overrides == {}


def test_an_unknown_pipeline_has_no_spec_unless_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")
    write(folder / "model_index.json", json.dumps({**INDEX, "_class_name": "OtherPipeline"}))
    assert locate(folder).spec is None
    named = locate(folder, model_id="FLUX.1-dev").spec
    assert named is not None
    assert named.id == "black-forest-labs/FLUX.1-dev"


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/mine").folder == tmp_path / "mine"


@pytest.mark.parametrize("path", ["./missing", "/missing", "~/missing"])
def test_a_missing_local_path_is_never_tried_as_a_hub_id(path: str, online: Hub) -> None:
    assert message(lambda: locate(path)) == f"{path}: no such folder"
    assert online.calls == []


def test_a_name_that_is_nothing(online: Hub) -> None:
    assert message(lambda: locate("tiny-scene")).startswith(
        "tiny-scene: no such folder, and neither a bundled model nor a hub id (owner/name); did you mean 'tiny-scenes'?"
        "; bundled: "
    )
    assert message(lambda: locate("a/b/c")).startswith("a/b/c: no such folder, and neither a bundled model")
    assert online.calls == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a" * 300, "File name too long"), ("~nobody-of-that-name/a", "Could not determine home directory.")],
)
def test_a_name_that_cannot_be_looked_up(name: str, reason: str) -> None:
    assert message(lambda: locate(name)) == f"{name}: no such folder ({reason})"


@pytest.mark.parametrize("name", ["tiny-scenes", "my model (2)", "owner/name", "black-forest-labs/FLUX.1-dev"])
def test_names_that_mean_a_model_anywhere(name: str) -> None:
    assert hub.is_portable(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "~", "~me", "/", "/a", "./a", "../a", "~/a", "a/b/c", "a/", "a/../b", "C:a", "C:\\a",
     "a\\b", "https://host/a", "a" * 300, f"a/{'b' * 300}"],
)  # fmt: skip
def test_names_that_mean_a_place(name: str) -> None:
    assert not hub.is_portable(name)


def test_a_folder_in_the_form_of_a_hub_id_is_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not hub.is_portable("owner/name")
    assert hub.is_portable("owner/other")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert message(lambda: locate(tmp_path)) == (
        f"{tmp_path}: is no diffusers model; looked for model_index.json and the component folders that it lists"
    )


def test_a_file_is_no_model(tmp_path: Path) -> None:
    write(tmp_path / "flux.safetensors", "x")
    path = tmp_path / "flux.safetensors"
    assert message(lambda: locate(path)) == f"{path}: is a file; a model is a folder with model_index.json"


def test_an_index_without_components_or_that_is_no_json(tmp_path: Path) -> None:
    write(tmp_path / "model_index.json", '{"_class_name": "FluxPipeline", "../x": ["diffusers", "Y"]}')
    assert message(lambda: locate(tmp_path)) == f"{tmp_path}: model_index.json lists no components"
    write(tmp_path / "model_index.json", "{")
    assert message(lambda: locate(tmp_path)).startswith(f"{tmp_path}/model_index.json: cannot be read: ")
    write(tmp_path / "model_index.json", "[]")
    assert message(lambda: locate(tmp_path)) == f"{tmp_path}/model_index.json: must hold a JSON object"


def test_a_missing_component_folder_is_named(tmp_path: Path) -> None:
    shutil.rmtree(write_model(tmp_path) / "vae")
    expected = f"{tmp_path}: is incomplete: the folder of its component 'vae' is missing"
    assert message(lambda: locate(tmp_path)) == expected


def test_weights_that_are_not_safetensors_need_trust(tmp_path: Path) -> None:
    weights = write_model(tmp_path) / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert message(lambda: locate(tmp_path)) == (
        f"{tmp_path}: its component 'vae' has no safetensors weights (found diffusion_pytorch_model.bin); "
        "weights of other formats need --trust-remote-code"
    )
    assert locate(tmp_path, trust_remote_code=True).folder == tmp_path


def test_absent_weights(tmp_path: Path) -> None:
    (write_model(tmp_path) / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    expected = f"{tmp_path}: its component 'vae' has no safetensors weights, nor any others"
    assert message(lambda: locate(tmp_path)) == expected
    assert message(lambda: locate(tmp_path, trust_remote_code=True)) == expected
    assert locate(tmp_path, load_format="dummy").folder == tmp_path
    (tmp_path / "vae" / "config.json").unlink()
    expected = f"{tmp_path}: is incomplete: the folder of its component 'vae' is empty"
    assert message(lambda: locate(tmp_path)) == expected


def test_an_absent_shard_is_named(tmp_path: Path) -> None:
    shards = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    write(write_model(tmp_path) / "vae" / "x.safetensors.index.json", json.dumps(shards))
    expected = f"{tmp_path}: is incomplete: vae/model-00002-of-00002.safetensors is missing"
    assert message(lambda: locate(tmp_path)) == expected


# --- bundled models


def test_a_bundled_model_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_shelves", lambda: (tmp_path / "package", tmp_path / "checkout"))
    (tmp_path / "package" / "tiny-scenes").mkdir(parents=True)  # without an index it does not count
    folder = write_model(tmp_path / "checkout" / "tiny-scenes")
    assert hub.bundled("tiny-scenes") == folder
    assert hub.bundled_names() == ("tiny-scenes",)
    source = locate("tiny-scenes")
    assert source.folder == folder
    assert source.spec is not None
    assert source.spec.id == "tiny-scenes"
    write_model(tmp_path / "package" / "tiny-scenes")
    assert hub.bundled("tiny-scenes") == tmp_path / "package" / "tiny-scenes"
    assert hub.bundled("../checkout/tiny-scenes") is None


def test_a_bundled_model_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: Hub) -> None:
    monkeypatch.setattr(hub, "_shelves", lambda: (tmp_path,))
    assert hub.bundled("tiny-scenes") is None
    assert hub.bundled_names() == ()
    expected = "tiny-scenes: this bundled model is missing from the installation"
    assert message(lambda: locate("tiny-scenes")) == expected
    assert online.calls == []


# --- component overrides


def test_an_override_may_be_a_folder_a_whole_model_or_a_file(tmp_path: Path) -> None:
    base, other = write_model(tmp_path / "base"), write_model(tmp_path / "other", guidance=False)
    write(other / "vae" / "config.json", '{"latent_channels": 4}')
    for given in (other / "vae", other):
        source = locate(base, component_paths={"vae": str(given)})
        assert source.overrides == {"vae": other / "vae"}
        assert source.configs["vae"] == {"latent_channels": 4}
    weights = other / "vae" / "diffusion_pytorch_model.safetensors"
    source = locate(base, component_paths={"vae": str(weights)})
    assert source.overrides == {"vae": weights}
    assert source.configs["vae"] == {"latent_channels": 16}
    swapped = locate(base, component_paths={"transformer": str(other / "transformer")})
    assert swapped.spec is not None
    assert swapped.spec.id == "black-forest-labs/FLUX.1-schnell"


def test_an_override_may_fill_an_empty_place_and_spare_a_missing_folder(tmp_path: Path) -> None:
    base, other = write_model(tmp_path / "base"), write_model(tmp_path / "other")
    shutil.rmtree(base / "vae")
    given = {"vae": str(other / "vae"), "image-encoder": str(other / "transformer")}
    assert locate(base, component_paths=given).overrides == {
        "vae": other / "vae",
        "image_encoder": other / "transformer",
    }


def test_an_override_of_no_component_is_answered_with_the_components(tmp_path: Path, online: Hub) -> None:
    write_model(online.repo(OWNER))
    given = {"vea": str(write_model(tmp_path / "other"))}
    components = "scheduler, transformer, vae"
    expected = f"--vea-path: the model has no component 'vea'; its components: {components}; did you mean 'vae'?"
    assert message(lambda: locate(OWNER, component_paths=given), UsageError) == expected
    assert message(lambda: plan(OWNER, component_paths=given), UsageError) == expected
    assert names(tmp_path / "cache") == [f"{OWNER}/snapshots/{COMMIT}/model_index.json"]


@pytest.mark.parametrize("path", ["./gone", "gone", "/gone"])
def test_an_override_that_does_not_exist(path: str, tmp_path: Path, online: Hub) -> None:
    write_model(tmp_path / "base")
    given = {"vae": path}
    expected = f"--vae-path: {path}: no such file or folder"
    assert message(lambda: locate(tmp_path / "base", component_paths=given)) == expected
    assert online.calls == []


def test_an_override_may_be_a_repository_of_one_component_or_of_a_model(tmp_path: Path, online: Hub) -> None:
    base = write_model(tmp_path / "base")
    write(online.repo("someone/vae") / "config.json", '{"latent_channels": 4}')
    write(online.repo("someone/vae") / "diffusion_pytorch_model.safetensors", "small")
    source = locate(base, component_paths={"vae": "someone/vae"})
    assert source.overrides == {"vae": tmp_path / "cache/someone/vae/snapshots" / COMMIT}
    assert source.configs["vae"] == {"latent_channels": 4}
    write_model(online.repo(OWNER))
    source = locate(base, component_paths={"vae": OWNER})
    place = tmp_path / "cache" / OWNER / "snapshots" / COMMIT
    assert source.overrides == {"vae": place / "vae"}
    assert not (place / "transformer").exists()


# --- the hub


def test_a_repository_brings_its_index_and_safe_component_files_only(tmp_path: Path, online: Hub) -> None:
    repo = write_model(online.repo(OWNER))
    for extra in (
        "README.md", "flux1-dev.safetensors", "sample/picture.png", "vae/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.bin", "vae/code.py", "unused/config.json",
    ):  # fmt: skip
        write(repo / extra, "not needed")
    source = locate(OWNER, revision="v1")
    assert names(source.folder) == names(write_model(tmp_path / "expected"))
    assert source.revision == COMMIT
    assert [call["revision"] for call in online.calls] == ["v1", COMMIT]
    assert not any(call["local_files_only"] for call in online.calls)
    trusted = locate(OWNER, trust_remote_code=True)
    assert {"vae/diffusion_pytorch_model.bin", "vae/code.py"} <= set(names(trusted.folder))


def test_an_overridden_component_is_not_downloaded(tmp_path: Path, online: Hub) -> None:
    write_model(online.repo(OWNER))
    other = write_model(tmp_path / "other")
    source = locate(OWNER, component_paths={"transformer": str(other / "transformer")})
    assert not (source.folder / "transformer" / "diffusion_pytorch_model.safetensors").exists()


def test_a_repository_without_index_is_no_model(online: Hub) -> None:
    write(online.repo(OWNER) / "model.safetensors", "x")
    expected = f"{OWNER}: is no diffusers model; looked for model_index.json and the component folders that it lists"
    assert message(lambda: locate(OWNER)) == expected
    assert message(lambda: plan(OWNER)) == expected


@pytest.mark.parametrize("how", [{"offline": True}, {"offline_variable": True}])
def test_offline_never_uses_the_network(how: dict[str, bool], online: Hub) -> None:
    write_model(online.repo(OWNER))
    locate(OWNER, **how)
    assert all(call["local_files_only"] for call in online.calls)


def test_modelscope_is_asked_when_the_variable_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = write_model(tmp_path), []
    monkeypatch.setattr(remote, "fetch", lambda repo, revision, patterns, access: asked.append(access) or folder)
    environment = Environment(cache_root=Path("unused"), use_modelscope=True)
    assert hub.locate(EngineConfig(model_path=OWNER), environment).folder == folder
    assert [access.modelscope for access in asked] == [True, True]
    found = hub.plan(EngineConfig(model_path=OWNER), environment)
    assert (found.folder, found.cached, found.download_bytes) == (None, False, None)  # it does not tell before


# --- plan


def test_a_plan_downloads_nothing_and_counts_what_is_needed(tmp_path: Path, online: Hub) -> None:
    repo = write_model(online.repo(OWNER))
    needed = sum(path.stat().st_size for path in repo.rglob("*") if path.is_file())
    write(repo / "unused" / "model.safetensors", "not needed")
    write(repo / "flux1-dev.safetensors", "not needed")
    found = plan(OWNER)
    assert (found.name, found.folder, found.cached, found.download_bytes) == (OWNER, None, False, needed)
    assert not (tmp_path / "cache").exists()
    known = write_model(online.repo("black-forest-labs/FLUX.1-dev"))
    assert known.is_dir()
    spec = plan("black-forest-labs/FLUX.1-dev").spec
    assert spec is not None
    assert spec.id == "black-forest-labs/FLUX.1-dev"
    locate(OWNER)
    after = plan(OWNER)
    assert (after.cached, after.download_bytes) == (True, 0)
    assert after.folder == tmp_path / "cache" / OWNER / "snapshots" / COMMIT


def test_a_plan_counts_components_from_elsewhere(tmp_path: Path, online: Hub) -> None:
    base = write_model(tmp_path / "base")
    assert plan(base) == hub.Plan(name=str(base), folder=base, cached=True, download_bytes=0, spec=locate(base).spec)
    write(online.repo("someone/vae") / "config.json", "{}")
    write(online.repo("someone/vae") / "diffusion_pytorch_model.safetensors", "12345")
    write(online.repo("someone/vae") / "sub" / "more.safetensors", "not needed")
    assert plan(base, component_paths={"vae": "someone/vae"}).download_bytes == 7
    write_model(online.repo(OWNER))
    size = len('{"latent_channels": 16}weights of the vae')
    assert plan(base, component_paths={"vae": OWNER}).download_bytes == size


def test_a_plan_without_network_uses_the_cache(tmp_path: Path, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(online.repo(OWNER))
    locate(OWNER)

    def unreachable(repo_id: str, **given: Any) -> Any:
        if given.get("dry_run"):
            raise errors.DryRunError("m") from ConnectionError("down")
        return online.snapshot_download(repo_id, **given)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    assert plan(OWNER).cached


# --- hash


def test_the_folder_hash_follows_names_sizes_and_contents_of_the_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = write_model(tmp_path / "one"), write_model(tmp_path / "two")
    first = hub.folder_hash(one)
    assert len(first) == 64
    assert hub.folder_hash(two) == first
    write(two / "README.md", "beside the model")
    assert hub.folder_hash(two) == first
    write(two / "vae" / "diffusion_pytorch_model.safetensors", "WEIGHTS of the vae")
    assert hub.folder_hash(two) != first
    (one / "vae" / "config.json").rename(one / "vae" / "other.json")
    assert hub.folder_hash(one) != first


def test_an_override_has_a_hash_too(tmp_path: Path) -> None:
    vae = write_model(tmp_path) / "vae"
    weights = vae / "diffusion_pytorch_model.safetensors"
    config = vae / "config.json"
    assert len({hub.folder_hash(place) for place in (tmp_path, vae, weights, config)}) == 4


def test_of_a_large_file_the_edges_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HASHED_WHOLE", 8)
    monkeypatch.setattr(hub, "EDGE", 2)
    write_model(tmp_path)
    weights = tmp_path / "vae" / "x.safetensors"
    hashes = {}
    for text in ("aa000000zz", "aa011110zz", "ab000000zz", "aa000000yz", "aa0000000zz"):
        weights.write_text(text)
        hub._hashes.clear()
        hashes[text] = hub.folder_hash(tmp_path)
    assert hashes["aa000000zz"] == hashes["aa011110zz"]
    assert len(set(hashes.values())) == 4


def test_a_hash_is_read_once_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path)
    first = hub.folder_hash(tmp_path)
    monkeypatch.setattr(hub, "_digest_content", lambda *_: pytest.fail("read again"))
    assert hub.folder_hash(tmp_path) == first


def test_bundled_adapters_go_by_their_own_name_or_that_of_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_shelves", lambda: (tmp_path / "wheel" / "models", tmp_path / "checkout" / "models"))
    for name in ("neon.safetensors", "pixel/lora.safetensors", "README.md"):
        write(tmp_path / "checkout/loras" / name, "x")
    write(tmp_path / "wheel" / "loras" / "neon.safetensors", "the installed one")
    assert hub.bundled_loras() == {
        "neon": tmp_path / "wheel/loras/neon.safetensors",
        "pixel": tmp_path / "checkout/loras/pixel/lora.safetensors",
    }


def test_a_model_id_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    expected = f"--model-id: Qwen/Qwen-Image is a QwenImagePipeline, but {folder} a FluxPipeline"
    for act in (locate, plan):
        assert message(lambda act=act: act(folder, model_id="Qwen-Image"), UsageError) == expected  # type: ignore[misc]
    assert locate(folder, model_id="Qwen-Image", pipeline_class_name="QwenImagePipeline").spec, "what is given counts"
