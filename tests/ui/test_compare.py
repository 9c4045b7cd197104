"""The Compare tab: cells become jobs with one seed, the grid fills, goes into one PNG, and can be cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from engine.errors import QueueFull, UsageError
from tests.ui.desks import desk_at
from ui import compare
from ui.compare import Compare
from ui.desk import Desk
from ui.page import Page

SMALL = {"prompt": "a <b>house</b>", "width": 64, "height": 64}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("compare"), "--max-running", "1", "--max-queue", "6") as found:
        yield found


@pytest.fixture(scope="module")
def tab(desk: Desk) -> Compare:
    with gr.Blocks():
        page = Page(desk)
        with gr.Tabs() as page.tabs, page.tab("compare", "Compare") as found:
            return Compare(page, found)


def asked(tab: Compare, axis: tuple[str, str, str, str], **values: Any) -> dict[str, Any]:
    grid, rows = tab.cells(axis, {**SMALL, **values}, None)
    return tab.submit(grid, rows, "me")


def over(tab: Compare, grid: dict[str, Any]) -> None:
    changed = tab.desk.queue.supervisor.changed
    with changed:
        for _ in range(3000):
            if all(job is not None and job.finished for row in tab.jobs(grid) for job in row):
                return
            changed.wait(0.01)
    raise AssertionError("the grid does not fill")


def test_a_grid_fills_and_becomes_one_picture(tab: Compare) -> None:
    grid = asked(tab, ("num_inference_steps", "2, 3", "prompt", "house > castle"))
    assert (grid["across"], grid["down"]) == (["2", "3"], ["house", "castle"])
    assert grid["names"] == ["Steps", "Words of the prompt"]
    over(tab, grid)
    rows = tab.jobs(grid)
    assert len({job.resolved.seed for row in rows for job in row if job is not None}) == 1
    assert [job.resolved.num_inference_steps for job in rows[0] if job is not None] == [2, 3]
    assert rows[1][0] is not None and rows[1][0].request.prompt == "a <b>castle</b>"
    view = tab.shown(grid)
    assert view.count("<img") == 4 and "<th>castle</th>" in view and "<b>" not in view
    _, _, timer, save = tab.look(grid, "")
    assert (timer.active, save["visible"]) == (False, True)
    tab.whole(grid)
    path = next(entry for entry in tab.file.temp_files if entry.endswith("sgdiff-app-grid.png"))
    with Image.open(path) as picture:
        assert picture.size[0] > 128 and picture.size[1] > 128


def test_cancel_ends_the_whole_grid_and_it_says_so(tab: Compare) -> None:
    grid = asked(tab, ("seed", "1-4", "", ""), prompt="a very slow house")
    assert tab.look(grid, "")[2].active
    for job in tab._unfinished(grid):
        tab.desk.cancel(job.id)
    over(tab, grid)
    assert tab.shown(grid).count("cancelled") == 4


def test_a_grid_that_does_not_fit_leaves_nothing_behind(tab: Compare, desk: Desk) -> None:
    with pytest.raises(QueueFull):
        asked(tab, ("seed", "1-20", "", ""), prompt="a very slow house")
    assert all(job.cancelled for job in desk.unfinished())


def test_mistakes_are_told_before_anything_is_drawn(tab: Compare, desk: Desk) -> None:
    before = desk.count()
    for axis, message in (
        (("num_inference_steps", "0", "", ""), "num_inference_steps"),
        (("lora", "1", "", ""), "choose one in LoRA first"),
        (("seed", "1-9", "num_inference_steps", "1-9"), "81 cells"),
    ):
        with pytest.raises(UsageError, match=message):
            asked(tab, axis)
    with pytest.raises(UsageError, match="seed: must be one"):
        asked(tab, ("num_inference_steps", "2", "", ""), seed=[1, 2])
    assert desk.count() == before


def test_how_many_there_are_is_said_before(tab: Compare) -> None:
    assert "6 pictures, about " in tab.plan("seed", "1-3", "num_inference_steps", "1, 2")
    assert "at most 64" in tab.plan("seed", "1-9", "num_inference_steps", "1-9")
    assert "must be whole numbers" in tab.plan("seed", "1.5", "", "")


def test_what_can_be_varied(tab: Compare) -> None:
    names = [name for _, name in compare.axes(tab.page)]
    assert names[:3] == ["seed", "prompt", "lora"]
    assert {"num_inference_steps", "true_cfg_scale", "width"} <= set(names)
    assert "num_outputs_per_prompt" not in names and len(names) == len(set(names))


def test_an_empty_grid_says_what_to_do(tab: Compare) -> None:
    assert "Choose a setting" in tab.shown({})
    gone = {"across": ["1"], "down": [""], "names": ["Seed", ""], "ids": [["img_none"]]}
    assert "gone" in tab.shown(gone)
