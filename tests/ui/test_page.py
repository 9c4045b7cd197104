"""The page: updates of what has changed alone, settings loaded into the tab that they are of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import gradio as gr
import pytest
from PIL import Image

from engine.catalog import by_name
from engine.types import Request
from tests.ui.desks import desk_at, stepping
from ui import controls, say
from ui.desk import Desk, Snapshot
from ui.forms import Form
from ui.page import LOST, Page, View, shortened


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture
def demo() -> gr.Blocks:
    return gr.Blocks()


@pytest.fixture
def page(desk: Desk, demo: gr.Blocks) -> Page:
    """A page with two forms and two views."""
    with demo:
        found = Page(desk)
        found.tabs = gr.Tabs()
        for name in ("generate", "edit"):
            found.forms[name] = form = Form(desk.spec)
            form.widget("prompt")
            form.widget("num_inference_steps")
        count, last = gr.HTML(), gr.HTML()
    found.views.append(View([count], lambda shown: len(shown.jobs), lambda shown: [f"{len(shown.jobs)} jobs"]))
    found.views.append(View([last], lambda shown: shown.model, lambda shown: [shown.model]))
    return found


def seen(page: Page, client: str, shown: dict[str, Any]) -> list[list[Any]]:
    return list(stepping(page.watch(client, shown, SimpleNamespace(session_hash="s"))))


def test_only_what_has_changed_is_sent(page: Page, desk: Desk) -> None:
    first = seen(page, "", {})
    assert first[-1][0] == "client_s" and first[-1][1] == "tiny-scenes"
    assert first[-1][3:] == ["0 jobs", "tiny-scenes"]
    again = seen(page, "client_s", first[-1][2])
    assert again[-1][0] == gr.skip() and again[-1][3:] == [gr.skip(), gr.skip()]
    page.submit("generate", {"prompt": "a hill"}, "client_s", None)
    assert seen(page, "client_s", first[-1][2])[0][3:] == ["1 jobs", gr.skip()]


def test_windows_that_follow_jobs_hold_no_thread(
    page: Page, desk: Desk, demo: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: an event that needs a thread finds one, also where there are only two."""
    unfinished: Any = SimpleNamespace(id="img_1", finished=False)
    still = replace(desk.snapshot(""), jobs=(unfinished,))
    monkeypatch.setattr(desk, "snapshot", lambda client, known: still)
    monkeypatch.setattr("ui.desk.BEAT_S", 3600.0)
    with demo:
        page.connect(demo)
        gr.Button().click(lambda: "answered", None, [gr.HTML()])
    watch = next(entry for entry in demo.fns.values() if entry.name == "watch")
    ordinary = [*demo.fns.values()][-1]
    asked = gr.Request(session_hash="s")

    async def follow() -> None:
        demo.limiter = anyio.CapacityLimiter(2)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        begun = [await demo.call_function(watch, [f"c{i}", {}], requests=asked) for i in range(60)]
        assert len(desk.followers) == 60 and all(entry["is_generating"] for entry in begun)
        steps = [demo.call_function(watch, [], iterator=entry["iterator"], requests=asked) for entry in begun]
        waiting = [asyncio.ensure_future(step) for step in steps]
        async with asyncio.timeout(30):
            assert (await demo.call_function(ordinary, []))["prediction"] == "answered"
            assert await asyncio.to_thread(lambda: "answered") == "answered"
            assert not any(step.done() for step in waiting)
            for window in waiting:
                window.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            while desk.followers:
                await asyncio.sleep(0.01)

    asyncio.run(follow())


def test_a_window_that_is_closed_between_two_steps_follows_no_more(
    page: Page, desk: Desk, demo: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = replace(desk.snapshot(""), jobs=(cast("Any", SimpleNamespace(id="img_1", finished=False)),))
    monkeypatch.setattr(desk, "snapshot", lambda client, known: still)
    with demo:
        page.connect(demo)
    watch = next(entry for entry in demo.fns.values() if entry.name == "watch")

    async def follow() -> None:
        begun = await demo.call_function(watch, ["c1", {}], requests=gr.Request(session_hash="s"))
        assert [*desk.followers] == ["c1"]
        await begun["iterator"].aclose()
        begun.clear()
        async with asyncio.timeout(30):
            while desk.followers:
                await asyncio.sleep(0.01)

    asyncio.run(follow())


@pytest.mark.parametrize("given", [5, ["client_1"], {"a": 1}, None, "", "<img src=x>", "x" * 101])
def test_what_is_no_id_of_a_browser_is_replaced(page: Page, given: Any) -> None:
    assert seen(page, given, {})[0][0] == "client_s"


def test_hidden_widgets_do_not_count(page: Page) -> None:
    job = page.submit("generate", {"prompt": "a hill", "num_frames": 7, "guidance_scale": 3.0}, "hidden", None)
    assert (job.request.num_frames, job.request.guidance_scale) == (None, None)


def test_chosen_adapters_are_those_of_the_request(page: Page) -> None:
    assert page.submit("generate", {"prompt": "a"}, "l", None).request.loras is None
    job = page.submit("generate", {"prompt": "a"}, "l", [{"path": "neon-night", "scale": 0.5}])
    assert job.request.loras is not None and job.request.loras[0].scale == 0.5
    assert page.submit("generate", {"prompt": "a"}, "l", []).request.loras == ()


def test_adapters_that_were_chosen_are_worn_again_if_they_are_still_here(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[Any]()
    monkeypatch.setattr(say, "changed", told.append)
    neon = {"path": "neon-night", "name": "neon", "scale": 0.5}
    loras, worn = page.worn_again([neon, {"path": "/gone/away.safetensors"}, 5])
    assert loras == worn and [(ref["path"], ref["scale"]) for ref in loras] == [("neon-night", 0.5)]
    assert len(told[-1]) == 2 and "/gone/away.safetensors: left out; no such file is here" in told[-1][0]
    assert page.worn_again(loras) == [loras, loras] and told[-1] == []
    assert page.worn_again([{"path": "/gone/away.safetensors"}]) == [None, None]
    assert page.worn_again([]) == [[], gr.skip()], "none, also not those of the server"
    for wrong in (None, "neon-night", 5, {"path": "neon-night"}):
        assert page.worn_again(wrong) == [gr.skip(), gr.skip()]


def test_settings_are_loaded_into_their_tab_alone(page: Page) -> None:
    updates = page.restored(Request(prompt="a lake", num_inference_steps=7), "edit")
    assert len(updates) == len(page.restore_outputs)
    assert updates[0].selected == "edit"
    assert updates[2:4] == [gr.skip(), gr.skip()]
    assert [update["value"] for update in updates[4:]] == ["a lake", 7]


def test_seed_and_count_that_are_shown_are_those_of_what_was_loaded(page: Page, demo: gr.Blocks, desk: Desk) -> None:
    with demo:
        controls.seed_row(page.forms["generate"])
    shown = [entry for form in page.forms.values() for entry in form.components]
    places = [shown.index(page.forms["generate"][name]) for name in ("seed", "num_outputs_per_prompt")]

    def values(updates: list[Any]) -> list[Any]:
        return [updates[2 + place]["value"] for place in places]

    asked = {"prompt": "a lake", "seed": 5, "num_outputs_per_prompt": 3}
    assert values(page.restored(Request(**asked), "generate")) == ["5", 3]
    job = page.submit("generate", asked, "counts", None)
    list(stepping(desk.follow("counts")))
    assert values(page.reloaded(desk.get(job.id), 2)) == ["7", 1]  # one output is made again, by its own seed


def test_settings_go_to_where_the_model_draws(page: Page, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tabs = ("generate", "edit", "video")
    able = {}
    for name in ("tiny-scenes", "Wan2.1-T2V-1.3B", "Wan2.2-I2V-A14B", "Z-Image-Turbo"):
        monkeypatch.setattr(Desk, "spec", by_name(name))
        able[name] = [page.able(tab) for tab in tabs]
    assert able == {
        "tiny-scenes": ["generate", "edit", "generate"],
        "Wan2.1-T2V-1.3B": ["video", "video", "video"],
        "Wan2.2-I2V-A14B": ["video", "video", "video"],
        "Z-Image-Turbo": able["Z-Image-Turbo"],
    }
    assert able["Z-Image-Turbo"][2] == "generate"


def test_what_was_changed_and_a_picture_that_is_gone_are_told(
    page: Page, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[list[str]]()
    monkeypatch.setattr(say, "changed", told.append)
    Image.new("RGB", (64, 64)).save(tmp_path / "in.png")
    job = page.submit("edit", {"prompt": "a hill", "image_path": [str(tmp_path / "in.png")], "seed": 7}, "x", None)
    with gr.Blocks():
        page.takes_input("edit", [gr.Image()], lambda *paths: [paths[0]])
    assert len(page.reloaded(job)) == len(page.reload_outputs) and page.reloaded(job)[-1] is not gr.skip()
    assert LOST not in told[-1]
    for path in desk.inputs(job):
        path.unlink()
    assert page.reloaded(job)[0].selected == "edit"
    assert told[-1][-1] == LOST and any(line.startswith("Seed: 7 is left out") for line in told[-1])


def test_a_job_of_another_door_belongs_to_the_tab_of_its_kind(page: Page, desk: Desk) -> None:
    job = desk.submit(desk.request({"prompt": "a hill"}), "x", "")
    assert page.tab_of(job) == "generate"
    assert page.tab_of(page.submit("edit", {"prompt": "a hill"}, "x", None)) == "edit"


def test_earlier_prompts_fill_every_menu(page: Page) -> None:
    page.menus += [gr.Dropdown(), gr.Dropdown()]
    updates = page.earlier([["a  hill\nby a lake", "fog"], ["", "fog"], ["b" * 200, ""]])
    assert len(updates) == 2
    assert updates[0]["choices"] == [("a hill by a lake", 0), ("b" * 89 + "…", 2)]
    assert page.earlier([["a", 5], "b", ["c"], ["d", "e"]])[0]["choices"] == [("d", 0)]  # what a browser made up
    assert not page.earlier({"a": 1})[0]["choices"] and not page.earlier(None)[0]["choices"]
    assert updates[0]["visible"] and not page.earlier([])[0]["visible"]


def test_texts_are_shortened_to_a_line() -> None:
    assert shortened("a" * 90) == "a" * 90 and len(shortened("a" * 91)) == 90


def test_snapshots_know_the_jobs_of_a_tab(desk: Desk) -> None:
    found: Snapshot = desk.snapshot("client_s")
    assert {job.notes["tab"] for job in found.of_tab("generate")} <= {"generate"}
