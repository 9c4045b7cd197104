"""What is loaded, what is set, what is in effect: calls that fail change nothing, and switching back reads no file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import SgdiffError
from engine.lora import files as lora_files
from engine.lora import formats, refs
from engine.lora.layers import Term
from engine.lora.manager import LoraManager
from engine.types import LoraRef

CPU = torch.device("cpu")
Files = dict[str, str]


@pytest.fixture
def network(lora: Any) -> Any:
    return copy.deepcopy(lora.denoiser("flux"))


@pytest.fixture
def files(network: Any, lora_file: Callable[..., Path]) -> Files:
    """Paths of two adapters for tiny FLUX."""
    return {name: str(lora_file(network, name, seed)) for seed, name in enumerate(("ink", "neon"))}


@pytest.fixture
def manager(network: Any) -> LoraManager:
    return LoraManager({"transformer": network, "text_encoder": torch.nn.Linear(2, 2), "scheduler": None}, CPU)


def _bytes(network: torch.nn.Module) -> bytes:
    return b"".join(weight.detach().view(torch.uint8).numpy().tobytes() for weight in network.state_dict().values())


def _set(manager: LoraManager, *call: Any) -> list[str]:
    warnings = manager.choose(refs.of_call(*call))
    manager.activate(manager.current)
    return warnings


def _refusal(action: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(SgdiffError) as error:
        action()
    return error.value.code, error.value.message


def test_what_is_set_comes_into_the_weights_and_goes(manager: LoraManager, network: Any, files: Files) -> None:
    base = _bytes(network)
    _set(manager, "ink", files["ink"])
    ink = _bytes(network)
    assert ink != base
    _set(manager, "neon", files["neon"])  # takes the place of the other one by itself
    assert _bytes(network) not in (base, ink)
    manager.unmerge()
    manager.activate(manager.current)
    assert _bytes(network) == base
    _set(manager, "ink")
    assert _bytes(network) == ink


def test_switching_back_reads_no_file(
    manager: LoraManager, network: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(manager, "ink", files["ink"], "all", 0.5)
    ink = _bytes(network)
    _set(manager, "neon", files["neon"])
    monkeypatch.setattr(formats, "read", None)  # nobody may call it
    Path(files["ink"]).unlink()
    _set(manager, "ink", files["ink"], "all", 0.5)
    assert _bytes(network) == ink
    _set(manager, "ink", None, "all", 0.5)
    assert _bytes(network) == ink
    _set(manager, ["neon", "ink"])


def test_a_new_path_under_a_nickname_is_loaded(manager: LoraManager, network: Any, files: Files) -> None:
    _set(manager, "style", files["ink"])
    ink = _bytes(network)
    _set(manager, "style", files["neon"])
    assert _bytes(network) != ink
    assert manager.listing()["loaded_adapters"] == [{"nickname": "style", "path": files["neon"]}]


def test_other_options_of_a_file_are_another_adapter(manager: LoraManager, files: Files) -> None:
    """What a request draws depends on nothing that another one has asked for before it."""
    few, all_of_it = ((LoraRef(path=files["ink"], modules=modules),) for modules in (("to_q",), None))
    counts = [len(manager.resolve(refs)[0].loaded.adapters["transformer"].adapter.layers) for refs in (few, all_of_it)]
    assert counts[0] < counts[1]
    _set(manager, "ink", files["ink"])
    assert manager.resolve([LoraRef(name="ink")])[0].loaded is manager.cache["ink"]


def test_a_list_says_what_is_loaded_and_in_effect(manager: LoraManager, files: Files) -> None:
    assert manager.listing() == {"loaded_adapters": [], "active": {}}
    _set(manager, ["ink", "neon"], [files["ink"], files["neon"]], "all", [0.5, 1.0])
    shared = {"merged": True, "mode": "merged", "num_lora_layers_with_weights": len(manager.cache["ink"].adapters[
        "transformer"].adapter.layers)}  # fmt: skip
    assert shared["num_lora_layers_with_weights"] > 10
    assert manager.listing() == {
        "loaded_adapters": [{"nickname": name, "path": files[name]} for name in ("ink", "neon")],
        "active": {
            "transformer": [
                {"nickname": "ink", "path": files["ink"], "strength": 0.5, **shared},
                {"nickname": "neon", "path": files["neon"], "strength": 1.0, **shared},
            ]
        },
    }
    manager.unmerge("transformer")
    assert manager.listing()["active"] == {}
    assert len(manager.listing()["loaded_adapters"]) == 2
    manager.merge(strength=0.25)
    assert [entry["strength"] for entry in manager.listing()["active"]["transformer"]] == [0.25, 0.25]


def test_beside_the_weights_is_said_so(network: Any, files: Files) -> None:
    manager, base = LoraManager({"transformer": network}, CPU, merge=False), _bytes(network)
    _set(manager, "ink", files["ink"])
    (entry,) = manager.listing()["active"]["transformer"]
    assert (entry["merged"], entry["mode"], manager.mode) == (False, "unmerged", "dynamic")
    assert _bytes(network) == base


def test_a_call_that_fails_changes_nothing(manager: LoraManager, network: Any, files: Files, tmp_path: Path) -> None:
    _set(manager, ["ink", "neon"], [files["ink"], files["neon"]])
    listing, weights = manager.listing(), _bytes(network)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    calls: list[tuple[Any, str]] = [
        (("ghost",), "lora_not_found"),
        ((["neon", "ink"], [files["ink"], str(tmp_path / "gone.safetensors")]), "lora_file_not_found"),
        ((["neon", "ink"], [files["ink"], str(bad)]), "lora_incompatible"),
        (("ink", None, "unet"), "lora_target_missing"),
    ]
    for call, code in calls:
        assert _refusal(lambda call=call: _set(manager, *call))[0] == code  # type: ignore[misc]
        assert (manager.listing(), _bytes(network)) == (listing, weights)


def test_refusals_say_what_there_is(manager: LoraManager, files: Files) -> None:
    assert _refusal(manager.merge) == ("no_lora_set", "no LoRA is set; set one first")
    ghost = "lora_nickname: 'ghost' is not loaded, give its path too; none is loaded"
    assert _refusal(lambda: _set(manager, "ghost")) == ("lora_not_found", ghost)
    _set(manager, "ink", files["ink"])
    assert _refusal(lambda: _set(manager, "ghost"))[1].endswith("; loaded: ink")
    lacking = "target: the model has no transformer_2; it has transformer"
    assert _refusal(lambda: manager.unmerge("transformer_2")) == ("lora_target_missing", lacking)
    nothing = LoraManager({"vae": torch.nn.Linear(1, 1)}, CPU)
    refused = ("lora_not_supported", "this model takes no LoRA: it has no denoiser to change")
    for action in (lambda: _set(nothing, "ink", files["ink"]), nothing.listing, nothing.merge, nothing.unmerge):
        assert _refusal(action) == refused


def test_a_target_that_the_model_lacks_is_skipped_with_a_warning(manager: LoraManager, files: Files) -> None:
    warnings = _set(manager, ["ink", "neon"], [files["ink"], files["neon"]], ["transformer_2", "transformer"])
    assert warnings == ["ink: the model has no transformer_2, skipped"]
    assert [use.loaded.nickname for use in manager.current] == ["neon"]


def test_two_experts_take_adapters_apart(network: Any, files: Files) -> None:
    experts = {"transformer": network, "transformer_2": copy.deepcopy(network)}
    manager, base = LoraManager(experts, CPU), _bytes(network)
    _set(manager, ["ink", "neon"], [files["ink"], files["neon"]], ["transformer", "transformer_2"])
    high, low = (_bytes(expert) for expert in experts.values())
    assert base not in (high, low)
    assert high != low
    manager.unmerge("transformer_2")
    manager.activate(manager.current)
    assert [_bytes(expert) for expert in experts.values()] == [high, base]


def test_what_is_unused_for_longest_is_forgotten(network: Any, files: Files) -> None:
    manager = LoraManager({"transformer": network}, CPU)
    _set(manager, "ink", files["ink"])
    one = manager.cache["ink"].nbytes
    manager.cache_bytes = 2 * one
    manager.resolve([LoraRef(name="b", path=files["neon"])])
    manager.resolve([LoraRef(name="b")])
    manager.resolve([LoraRef(name="c", path=files["neon"])])
    assert list(manager.cache) == ["ink", "c"], "what is set stays, whenever it was used"
    _set(manager, "c")
    manager.resolve([LoraRef(name="d", path=files["neon"])])
    assert list(manager.cache) == ["c", "d"]


def test_a_set_that_is_under_way_outlives_a_reload(manager: LoraManager, network: Any, files: Files) -> None:
    """A request keeps the file that it was accepted with, whatever its nickname comes to mean."""
    accepted = manager.resolve([LoraRef(name="style", path=files["ink"])])
    manager.activate(accepted)
    ink = _bytes(network)
    _set(manager, "style", files["neon"])
    manager.activate(accepted)
    assert _bytes(network) == ink


def test_after_a_failure_in_between_the_next_change_is_whole(
    manager: LoraManager, network: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = _bytes(network)
    _set(manager, "ink", files["ink"])
    ink = _bytes(network)
    neon = manager.resolve([LoraRef(path=files["neon"])])
    added: list[Any] = []

    def third_fails(term: Term, total: torch.Tensor) -> None:
        added.append(total)
        if len(added) == 3:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(Term, "add_to", third_fails)
    with pytest.raises(torch.OutOfMemoryError):
        manager.activate(neon)
    monkeypatch.undo()
    manager.activate(manager.current)
    assert _bytes(network) == ink
    manager.activate(())
    assert _bytes(network) == base


def test_a_recipe_names_files_so_that_any_machine_knows_them(manager: LoraManager, files: Files) -> None:
    wanted = [LoraRef(name="a", path=files["ink"], scale=0.5, modules=("to_q",)), LoraRef(path=files["neon"])]
    ink, neon = manager.record(manager.resolve(wanted))
    assert ink.items() >= {"path": "ink.safetensors", "scale": 0.5, "target": "all", "modules": ["to_q"]}.items()
    assert neon.keys() == {"path", "sha256", "scale", "target"}
    assert (len(ink["sha256"]), neon["path"]) == (64, "neon.safetensors")
    assert str(Path(files["ink"]).parent) not in str((ink, neon))


@pytest.fixture
def experts(network: Any) -> LoraManager:
    """Two networks, as of Wan A14B."""
    return LoraManager({"transformer": network, "transformer_2": copy.deepcopy(network)}, CPU)


def _targets(manager: LoraManager) -> list[str]:
    return [use.target for use in manager.current]


def test_a_recipe_tells_the_experts_that_were_changed(experts: LoraManager, files: Files) -> None:
    def recorded() -> list[tuple[str, float]]:
        return [(entry["target"], entry["scale"]) for entry in experts.record(experts.current)]

    _set(experts, "ink", files["ink"], "transformer")
    assert recorded() == [("transformer", 1.0)]
    _set(experts, "ink", files["ink"])
    assert recorded() == [("all", 1.0)]
    experts.merge("transformer_2", 0.5)
    assert recorded() == [("transformer", 1.0), ("transformer_2", 0.5)]
    experts.merge(strength=1.0)
    assert recorded() == [("all", 1.0)]
    experts.unmerge("transformer")
    assert recorded() == [("transformer_2", 1.0)]


def test_a_file_for_the_second_expert_alone_leaves_the_first(
    experts: LoraManager, manager: LoraManager, files: Files, tmp_path: Path
) -> None:
    low = str(tmp_path / "low.safetensors")
    state = load_file(files["ink"])
    save_file({key.replace("transformer.", "transformer_2.", 1): value for key, value in state.items()}, low)
    _set(experts, "low", low)
    assert _targets(experts) == ["transformer_2"]
    _set(experts, "low", low, "transformer")
    assert _targets(experts) == ["transformer"], "whoever says so may"
    _set(experts, "both", files["ink"])
    assert _targets(experts) == ["transformer", "transformer_2"]
    _set(manager, "low", low)
    assert _targets(manager) == ["transformer"], "a model that has no other one"


def test_a_file_that_changed_on_disk_is_the_loaded_one_until_it_is_read_again(
    experts: LoraManager, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    def digest() -> str:
        (entry,) = experts.record(experts.current)
        return str(entry["sha256"])[:8]

    _set(experts, "style", files["ink"], "transformer")
    ink = digest()
    Path(files["ink"]).write_bytes(Path(files["neon"]).read_bytes())
    _set(experts, "style", files["ink"], "transformer")
    assert digest() == ink
    _set(experts, "style", files["ink"], "transformer_2")
    assert digest() != ink
    assert "style: the file has changed since it was loaded, and is read anew" in caplog.text
    high, low = experts.networks.values()
    neon = LoraManager({"transformer": high}, CPU)
    experts.activate(())
    _set(neon, "neon", files["neon"])
    expected = _bytes(high)
    neon.activate(())
    experts.activate(experts.current)
    assert _bytes(low) == expected


def test_a_component_that_a_file_does_not_fit_is_not_tried_again(
    network: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = torch.nn.ModuleDict({"else": torch.nn.Linear(2, 2)})
    parts = {"transformer": network, "transformer_2": other, "text_encoder": torch.nn.Linear(2, 2)}
    manager = LoraManager(parts, CPU, encoders=True)
    _set(manager, "ink", files["ink"])
    monkeypatch.setattr(formats, "read", None)  # nobody may call it
    Path(files["ink"]).unlink()
    _set(manager, "ink", files["ink"])
    assert _targets(manager) == ["transformer"]
    code, message = _refusal(lambda: _set(manager, "ink", files["ink"], "transformer_2"))
    assert code == "lora_incompatible"
    assert message.startswith("ink.safetensors: does not fit ModuleDict")


def test_a_strength_that_cannot_be_leaves_what_was_set(manager: LoraManager, network: Any, files: Files) -> None:
    _set(manager, "ink", files["ink"])
    before, weights = manager.setting, _bytes(network)
    for strength in (float("nan"), float("inf"), 1e30, "2"):
        with pytest.raises(SgdiffError, match="strength: must be"):
            manager.merge(strength=strength)
    manager.activate(manager.current)
    assert (manager.setting, _bytes(network)) == (before, weights)


def test_a_merge_needs_an_adapter_on_its_target(experts: LoraManager, files: Files) -> None:
    _set(experts, "ink", files["ink"], "transformer")
    refusal = _refusal(lambda: experts.merge("transformer_2", 0.5))
    assert refusal == ("no_lora_set", "no LoRA is set on transformer_2; set one first")


def test_a_nickname_that_is_nearly_right_is_suggested(manager: LoraManager, files: Files) -> None:
    _set(manager, "ink", files["ink"])
    code, message = _refusal(lambda: _set(manager, "inc"))
    assert code == "lora_not_found"
    assert message == "lora_nickname: 'inc' is not loaded, give its path too; did you mean 'ink'?; loaded: ink"


def test_a_file_read_in_another_way_is_another_adapter(manager: LoraManager, files: Files, tmp_path: Path) -> None:
    """Two nicknames or one: what is asked for is what is drawn."""
    both = tmp_path / "both"
    both.mkdir()
    for name, file in files.items():
        (both / f"{name}.safetensors").write_bytes(Path(file).read_bytes())
    asked = [
        LoraRef(path=str(both), weight_name="ink"),
        LoraRef(path=str(both), weight_name="ink", alpha=8),
        LoraRef(path=str(both), weight_name="neon", alpha=8),
    ]
    loaded = [manager.resolve([ref])[0].loaded for ref in asked]
    assert len({id(one) for one in loaded}) == 3
    scales = [next(iter(one.adapters["transformer"].adapter.layers.values())).scale for one in loaded]
    assert scales == [1.0, 4.0, 4.0]
    assert loaded[1].identity["sha256"] != loaded[2].identity["sha256"]


def test_a_merge_of_one_target_leaves_the_other_unmerged(experts: LoraManager, files: Files) -> None:
    _set(experts, "ink", files["ink"])
    experts.unmerge()
    experts.merge("transformer_2")
    assert _targets(experts) == ["transformer_2"]


def test_the_one_used_last_is_kept_longest(manager: LoraManager, files: Files) -> None:
    for name in ("a", "b"):
        manager.resolve([LoraRef(name=name, path=files["ink"])])
    manager.resolve([LoraRef(name="a")])
    manager.cache_bytes = 2 * manager.cache["a"].nbytes
    manager.resolve([LoraRef(name="c", path=files["neon"])])
    assert list(manager.cache) == ["a", "c"]


def test_a_recipe_names_the_file_of_a_repository(
    manager: LoraManager, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "snapshots" / ("0" * 40)
    place = snapshot / "sub" / "low.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(Path(files["ink"]).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lora_files, "locate", lambda *_: place)
    for ref in (LoraRef(path="owner/style", weight_name="sub/low"), LoraRef(path="owner/style/sub/low.safetensors")):
        (entry,) = manager.record(manager.resolve([ref]))
        assert (entry["path"], entry["weight_name"]) == ("owner/style", "sub/low.safetensors")
    (tmp_path / "bundled-name").mkdir()
    (entry,) = manager.record(manager.resolve([LoraRef(path="bundled-name")]))
    assert (entry["path"], "weight_name" in entry) == ("low.safetensors", False), "a folder here is none on others"
