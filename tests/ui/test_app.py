"""The page as a whole: every tab in its order, one event that follows jobs, a header that says how things are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.ui.desks import desk_at
from ui.app import build, header, launch_options
from ui.desk import Desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("app")) as found:
        yield found


def test_tabs_in_their_order_and_events_that_nobody_else_may_call(desk: Desk) -> None:
    config = build(desk).get_config_file()
    tabs = [entry["props"]["label"] for entry in config["components"] if entry["type"] == "tabitem"]
    tabs = [label for label in tabs if label in ("Generate", "Edit", "Video", "LoRA", "Gallery", "Compare", "System")]
    assert tabs == ["Generate", "Edit", "Video", "LoRA", "Gallery", "Compare", "System"]
    python = [entry for entry in config["dependencies"] if entry["backend_fn"]]
    assert python and {entry["api_visibility"] for entry in python} == {"private"}
    assert sum(("load" in str(entry["targets"])) and entry["types"]["generator"] for entry in python) == 1


def test_only_outputs_and_their_thumbnails_are_served(desk: Desk) -> None:
    options = launch_options(desk)
    assert desk.queue.delivery.folder is not None
    outputs, small = desk.queue.delivery.folder, desk.options.data / "thumbnails"
    assert options["allowed_paths"] == [str(outputs.resolve()), str(small.resolve())]
    assert options["max_file_size"] == desk.options.max_upload


def test_the_header_tells_of_model_health_and_work(desk: Desk) -> None:
    quiet = desk.snapshot("")
    assert "tiny-scenes" in header(quiet) and "idle" in header(quiet)
    busy = header(replace(quiet, health="loading", running=1, waiting=2, model="<b>"))
    assert "loading" in busy and "1 running, 2 waiting" in busy and "&lt;b&gt;" in busy
    assert "Log out" in header(quiet, login=True) and "Log out" not in header(quiet)
    assert "out of &quot;memory&quot;" in header(replace(quiet, health="unhealthy", error='out of "memory"'))
