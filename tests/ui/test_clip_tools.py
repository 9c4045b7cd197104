"""Clips as results: the player, the strip of frames, and what is cut, joined and exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from engine import editing
from engine.errors import NotFound
from engine.jobs import Job
from engine.jobs.edits import edited
from tests.ui.desks import desk_at, following, stepping
from ui import clip_tools
from ui.clip_tools import ClipPanel, ClipTools
from ui.desk import Desk
from ui.page import Page

CLIENT = "c1"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    flags = ("--model-path", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "--load-format", "dummy", "--offline")
    with desk_at(tmp_path_factory.mktemp("clips"), *flags) as found:
        yield found


@pytest.fixture(scope="module")
def made(desk: Desk) -> list[Job]:
    """Two clips of nine frames, the older first."""
    shape: dict[str, Any] = {"width": 64, "height": 48, "num_frames": 9, "fps": 8}
    for prompt in ("one <b>boat</b>", "two boats"):
        desk.submit(desk.request({"prompt": prompt, **shape}), CLIENT, "video")
        list(following(desk, CLIENT))
    return desk.jobs_of(CLIENT)[::-1]


@pytest.fixture
def tools(desk: Desk) -> tuple[ClipPanel, ClipTools, dict[int, Any]]:
    with gr.Blocks() as demo:
        page = Page(desk)
        panel = ClipPanel(page, "video")
        found = ClipTools(panel, lambda: True)
    return panel, found, {entry.targets[0][0]: entry.fn for entry in demo.fns.values() if entry.targets}


def worked(steps: Any) -> list[list[Any]]:
    """Go through what a button does, and return its updates."""
    return list(stepping(steps))


Tools = tuple[ClipPanel, ClipTools, dict[int, Any]]


def shown(panel: ClipPanel, desk: Desk) -> tuple[Any, list[list[Any]], list[Any]]:
    """Return the row of clips, the items, and what is told of the newest."""
    results, _, items, chosen, *about = panel.finished(desk.snapshot(CLIENT))
    assert chosen == 0
    return results, items, about


def test_no_clip_is_an_empty_panel(desk: Desk, tools: Tools) -> None:
    panel, found, _ = tools
    results, actions, items, _, *about = panel.finished(desk.snapshot("nobody"))
    assert not results["visible"] and not actions["visible"] and items == []
    assert about[0] == about[-1] == ""
    frames, box, *_ = found.show([], 0)
    assert frames == "" and not box["visible"]


def test_a_clip_plays_above_its_frames(desk: Desk, tools: Tools, made: list[Job]) -> None:
    panel, found, _ = tools
    results, items, (told, _, download, _, player) = shown(panel, desk)
    one, two = made
    assert items[-1] == [one.id, 0] and [two.id, 0] in items
    assert results["value"].count("<button") == len(items) and "&lt;b&gt;" in results["value"]
    at = items.index([two.id, 0])
    told, _, download, _, player = panel.told_of(two, 0)
    assert "9 frames at 8 fps" in told and download["value"] == two.artifacts[0].location
    assert player.startswith("<video") and "controls autoplay loop muted" in player
    assert 'aria-label="two boats"' in player
    frames, box, cut, start, end, fps, width = found.show(items, at)
    assert frames.count("<img") == clip_tools.FRAMES and 'data-at="1.0000"' in frames
    assert box["visible"] and cut["visible"] and start["value"] == 0
    assert (end["value"], fps["maximum"], width["maximum"]) == (1.12, 8, 64)


def test_a_part_a_gif_and_joined_clips_appear_with_the_job(desk: Desk, tools: Tools, made: list[Job]) -> None:
    panel, found, fns = tools
    one, two = made
    items = [[two.id, 0], [one.id, 0]]
    begun, ended = worked(fns[found.trim._id](items, 1, 0.0, 0.5))
    assert [button["interactive"] for button in begun[2:5]] == [False] * 3 and clip_tools.CUTS in begun[5]
    assert [button["interactive"] for button in ended[2:5]] == [True] * 3 and ended[5] == ""
    name = ended[0]
    assert Path(name).stem == f"{one.id}_edit1"
    path = edited(desk.get(one.id))[0]
    assert editing.probe(path).frames == 4
    _, items, (told, _, download, _, player) = shown(panel, desk)
    assert items[0] == [one.id, 1]  # the newest file is the chosen one, whatever the age of its job
    assert "Edit 1 · MP4 · 0.5 s" in told and download["value"] == str(path) and path.name in player
    assert panel.made_at(items, 0)[1] == replace(one.artifacts[0], location=str(path))

    worked(fns[found.gif._id](items, 0, 4.0, 32.0))  # of an edited clip
    _, items, (told, _, _, _, player) = shown(panel, desk)
    assert "Edit 2 · GIF" in told and "<img" in player
    with Image.open(panel.path_at(items, 0)) as picture:
        assert (picture.format, picture.size) == ("GIF", (32, 24))
    frames, box, cut, *_ = found.show(items, 0)
    assert frames == "" and box["visible"] and not cut["visible"]

    offered = found.offer(items, ["gone 0", f"{two.id} 0"])
    values = [value for _, value in offered["choices"]]
    assert values == [f"{one.id} 1", f"{two.id} 0", f"{one.id} 0"]  # no GIF file
    assert offered["value"] == [f"{two.id} 0"]
    picked = worked(fns[found.join._id]([f"{two.id} 0", f"{one.id} 1"], 0.0))[-1][1]
    assert picked == [] and editing.probe(edited(desk.get(two.id))[0]).frames == 9 + 4


def test_what_is_gone_is_told_and_offered_no_more(tools: Tools, made: list[Job]) -> None:
    _, found, fns = tools
    there = [made[0].id, 0]
    for items, chosen in (([], 0), ([there], 1), ([["img_1", 0]], 0), ([[made[0].id, 99]], 0)):
        with pytest.raises(gr.Error, match=r"no job|the results have changed"):
            worked(fns[found.trim._id](items, chosen, 0.0, 0.5))
        assert found.show(items, chosen)[0] == ""
    with pytest.raises(gr.Error, match="the results have changed"):
        worked(fns[found.join._id]([f"{made[0].id} 0", f"{made[0].id} 99"], 0.0))
    offered = found.offer([["img_1", 0], [made[0].id, 99], there], [])
    assert [value for _, value in offered["choices"]] == [f"{made[0].id} 0"]
    with pytest.raises(NotFound, match="the results have changed"):
        clip_tools.frame(made[0].artifacts[0].location, 99)


def test_what_cannot_be_cut_is_told(tools: Tools, made: list[Job]) -> None:
    _, found, fns = tools
    items = [[made[0].id, 0]]
    shown = list[Any]()
    with pytest.raises(gr.Error, match=r"end: must be after the start at 0\.5 s"):
        shown.extend(step[2:] for step in stepping(fns[found.trim._id](items, 0, 0.5, 0.5)))
    assert shown == [found.busy(clip_tools.CUTS), found.idle()], "the buttons come back"
    with pytest.raises(gr.Error, match="Pick two clips or more"):
        worked(fns[found.join._id]([f"{made[0].id} 0"], 0.0))


def test_a_page_that_follows_another_job_sees_an_edit_at_once(desk: Desk, made: list[Job]) -> None:
    desk.submit(desk.request({"prompt": "slow", "width": 64, "height": 48, "num_frames": 1}), CLIENT, "video")
    seen = list[int]()
    for snapshot in following(desk, CLIENT):
        if not seen:
            desk.keep_edit(made[0].id, lambda queue: clip_tools.edits.to_gif(queue, made[0].id, 2, 16))
        seen.append(len(edited(next(job for job in snapshot.jobs if job.id == made[0].id))))
        if len(seen) > 1 and seen[-1] > seen[0]:
            break
    assert seen[-1] == seen[0] + 1


def test_a_frame_comes_in_full_size(made: list[Job]) -> None:
    path = made[0].artifacts[0].location
    assert clip_tools.frame(path, 3).size == clip_tools.frame(path, -1).size == (64, 48)


def test_the_names_of_clips_are_short_and_say_what_was_edited() -> None:
    job: Any = SimpleNamespace(
        request=SimpleNamespace(prompt="a very long prompt " * 9), artifacts=[], expired=False, files=("a_edit1.mp4",)
    )
    assert clip_tools.title(job, 0).endswith("… · Edit 1")
