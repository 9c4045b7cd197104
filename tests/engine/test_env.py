"""The environment: spellings, their order, truth values, and errors that name the variable."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from engine import env
from engine.errors import UsageError


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        (
            "SGLANG_DIFFUSION_ATTENTION_CONFIG",
            ("SGDIFF_ATTENTION_CONFIG", "SGDIFF_DIFFUSION_ATTENTION_CONFIG", "SGLANG_DIFFUSION_ATTENTION_CONFIG"),
        ),
        ("SGLANG_CACHE_DIT_RDT", ("SGDIFF_CACHE_DIT_RDT", "SGLANG_CACHE_DIT_RDT")),
        ("SGDIFF_API_KEY", ("SGDIFF_API_KEY",)),
        ("HF_HUB_OFFLINE", ("HF_HUB_OFFLINE",)),
    ],
)
def test_spellings_from_the_strongest(name: str, spellings: tuple[str, ...]) -> None:
    assert env.spellings(name) == spellings


def test_ours_wins_over_the_literal_swap_and_that_over_the_original() -> None:
    environ = {
        "SGLANG_DIFFUSION_CACHE_ROOT": "/c",
        "SGDIFF_DIFFUSION_CACHE_ROOT": "/b",
        "SGDIFF_CACHE_ROOT": "/a",
    }
    found = []
    for name in ("SGDIFF_CACHE_ROOT", "SGDIFF_DIFFUSION_CACHE_ROOT", "SGLANG_DIFFUSION_CACHE_ROOT"):
        found.append(env.read(environ).cache_root)
        del environ[name]
    assert found == [Path("/a"), Path("/b"), Path("/c")]


def test_empty_is_unset() -> None:
    environ = {"SGDIFF_CACHE_DIT_RDT": "", "SGLANG_CACHE_DIT_RDT": "0.1"}
    assert env.lookup("SGLANG_CACHE_DIT_RDT", environ) == ("SGLANG_CACHE_DIT_RDT", "0.1")
    assert env.lookup("SGLANG_CACHE_DIT_RDT", {"SGDIFF_CACHE_DIT_RDT": ""}) is None
    assert env.read({"SGDIFF_USE_MODELSCOPE": "", "XDG_CACHE_HOME": ""}).use_modelscope is False


@pytest.mark.parametrize("text", ["1", "true", "True", "YES", "on"])
def test_true(text: str) -> None:
    assert env.boolean("X", text) is True


@pytest.mark.parametrize("text", ["0", "false", "FALSE", "no", "Off"])
def test_false(text: str) -> None:
    assert env.boolean("X", text) is False


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert env.read({"XDG_CACHE_HOME": "/cache"}) == env.Environment(cache_root=Path("/cache/sgdiff"))
    assert env.read({}).cache_root == Path.home() / ".cache/sgdiff"
    assert env.read({}).profiler_dir == Path("logs")


def test_the_home_folder_is_expanded_in_every_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/users/me")
    environ = {"SGDIFF_CACHE_ROOT": "~/c", "SGLANG_TORCH_PROFILER_DIR": "~/t", "SGDIFF_PERF_LOG_DIR": "~/p"}
    read = env.read(environ)
    assert (read.cache_root, read.profiler_dir, read.perf_log_dir) == (
        Path("/users/me/c"), Path("/users/me/t"), Path("/users/me/p"),
    )  # fmt: skip
    assert env.read({"XDG_CACHE_HOME": "~/x"}).cache_root == Path("/users/me/x/sgdiff")


def test_a_home_folder_that_nobody_has_is_said() -> None:
    with pytest.raises(UsageError) as caught:
        env.read({"SGDIFF_CACHE_ROOT": "~nobody-of-that-name/c"})
    assert caught.value.message == "SGDIFF_CACHE_ROOT: ~nobody-of-that-name/c: no such home folder"


def test_where_nothing_is_set_the_system_says_where_caches_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def place(*args: object, **given: object) -> Path:
        asked.extend((args, given))
        return Path("/Library/Caches/sgdiff")

    monkeypatch.setattr(platformdirs, "user_cache_path", place)
    assert env.read({}).cache_root == Path("/Library/Caches/sgdiff")
    assert asked == [("sgdiff",), {"appauthor": False}]
    assert env.read({"XDG_CACHE_HOME": "/cache"}).cache_root == Path("/cache/sgdiff")


def test_every_variable_arrives() -> None:
    read = env.read(
        {
            "SGLANG_DIFFUSION_CACHE_ROOT": "/cache",
            "SGLANG_USE_MODELSCOPE": "yes",
            "SGLANG_DIFFUSION_MODEL_OVERLAY_REGISTRY": "{}",
            "SGLANG_TORCH_PROFILER_DIR": "/traces",
            "SGLANG_DIFFUSION_STAGE_LOGGING": "on",
            "SGLANG_PERF_LOG_DIR": "/perf",
            "SGLANG_DIFFUSION_SYNC_STAGE_PROFILING": "1",
            "SGLANG_GIT_COMMIT": "abc",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "0",  # any value counts, as its own convention says
            "SGDIFF_TEST_STEP_DELAY_MS": "2.5",
            "SGDIFF_TEST_FAULT": "oom@3",
        }
    )
    assert read == env.Environment(
        cache_root=Path("/cache"), use_modelscope=True, overlay_registry="{}", profiler_dir=Path("/traces"),
        stage_logging=True, perf_log_dir=Path("/perf"), sync_stage_profiling=True, git_commit="abc", hub_offline=True,
        no_color=True, test_step_delay_ms=2.5, test_fault="oom@3",
    )  # fmt: skip


def test_the_first_of_two_trace_folders_wins() -> None:
    environ = {"SGLANG_DIFFUSION_TORCH_PROFILER_DIR": "/first", "SGLANG_TORCH_PROFILER_DIR": "/second"}
    assert env.read(environ).profiler_dir == Path("/first")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"SGDIFF_USE_MODELSCOPE": "maybe"},
            "SGDIFF_USE_MODELSCOPE: must be one of 1, true, yes, on, 0, false, no, off, got 'maybe'",
        ),
        (
            {"SGLANG_DIFFUSION_STAGE_LOGGING": "2"},
            "SGLANG_DIFFUSION_STAGE_LOGGING: must be one of 1, true, yes, on, 0, false, no, off, got '2'",
        ),
        (
            {"SGDIFF_TEST_STEP_DELAY_MS": "soon"},
            "SGDIFF_TEST_STEP_DELAY_MS: must be a number, got 'soon'",
        ),
    ],
)
def test_a_bad_value_names_the_variable_as_it_was_spelled(environ: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        env.read(environ)
    assert (caught.value.message, caught.value.exit_status) == (message, 2)


def test_without_a_mapping_it_reads_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGDIFF_GIT_COMMIT", "from-the-process")
    assert env.read().git_commit == "from-the-process"
    assert env.lookup("SGLANG_GIT_COMMIT") == ("SGDIFF_GIT_COMMIT", "from-the-process")
    assert "SGDIFF_GIT_COMMIT" in env.project_names()


def test_only_our_own_names_are_ours() -> None:
    environ = {"SGDIFF_PORT": "1", "SGLANG_PORT": "2", "PATH": "3", "SGDIFFX": "4"}
    assert list(env.project_names(environ)) == ["SGDIFF_PORT"]


def test_every_variable_that_is_read_is_known() -> None:
    """So that none of them is answered with `unknown variable`."""
    asked: list[str] = []

    class Spy(dict[str, str]):
        def get(self, key: str, default: object = None) -> None:  # type: ignore[override]
            asked.append(key)

    env.read(Spy())
    known = {spelling for name in env.ENVIRONMENT_ONLY for spelling in env.spellings(name)}
    assert {name for name in asked if name.startswith(("SGDIFF_", "SGLANG_"))} <= known
    assert len(asked) > 20


def test_where_a_window_can_be_shown() -> None:
    assert env.has_display({"DISPLAY": ":0"}, "linux") and env.has_display({"WAYLAND_DISPLAY": "wayland-0"}, "linux")
    assert not env.has_display({"DISPLAY": ""}, "linux")
    assert env.has_display({}, "darwin") and env.has_display({}, "win32")


def test_where_nobody_looks_at_the_screen() -> None:
    assert not env.is_remote({}) and not env.is_remote({"CI": "false"})
    assert all(env.is_remote({name: "1"}) for name in ("CI", "SSH_TTY", "SSH_CONNECTION", "SSH_CLIENT"))


def test_a_page_keeps_its_files_in_its_folder_and_reports_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "before")  # and put back afterwards
    env.prepare_page(tmp_path / "page")
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path / "page")
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
