"""The Gallery tab: which jobs it lists, what it shows of files that are there or gone, what it gives back."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import gradio as gr
import pytest
from PIL import Image

from engine import recipe_file
from engine.errors import InputError, NotFound
from engine.jobs import Job
from engine.types import LoraRef
from tests.ui.desks import desk_at
from ui import cards, gallery
from ui.desk import Desk
from ui.forms import Form
from ui.gallery import Gallery
from ui.page import Page

FIRST = ("", "All", gallery.EVERY_MODEL, False, [])
WICKED = '<img src=x onerror="1"> ${1+1} {{x}}'


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("gallery")) as found:
        yield found


@pytest.fixture(autouse=True)
def emptied(desk: Desk) -> Iterator[None]:
    yield
    for job in desk.page(limit=100)[0]:
        desk.delete(job.id)


@pytest.fixture(scope="module")
def built(desk: Desk) -> tuple[Gallery, dict[int, Any]]:
    with gr.Blocks() as demo:
        page = Page(desk)
        with gr.Tabs() as page.tabs, page.tab("gallery", "Gallery") as tab:
            found = Gallery(page, tab)
            page.takes_input("edit", [gr.Image(type="filepath")], lambda path: [path])
            for connect in page.waiting:
                connect()
    return found, {target: entry.fn for entry in demo.fns.values() for target in entry.targets[:1]}


@pytest.fixture(scope="module")
def shelf(built: tuple[Gallery, dict[int, Any]]) -> Gallery:
    return built[0]


@pytest.fixture(scope="module")
def handlers(built: tuple[Gallery, dict[int, Any]]) -> dict[Any, Any]:
    """Return what the events of components do, by id and, where there are several, by id and event."""
    return {**{target[0]: fn for target, fn in built[1].items()}, **built[1]}


def drawn(desk: Desk, prompt: str = "a house", tab: str = "", **values: Any) -> Job:
    """Have something drawn and wait for its end."""
    request = desk.request({"prompt": prompt, "width": 64, "height": 64, "seed": 5, **values})
    job = desk.submit(request, "me", tab or ("edit" if request.image_path else "generate"))
    changed = desk.queue.supervisor.changed
    with changed:
        for _ in range(3000):
            if job.finished:
                return job
            changed.wait(0.01)
    raise AssertionError("waited too long")


def listed(shelf: Gallery, *given: Any) -> list[str]:
    return list(shelf.cards_after(*(given or FIRST))[2])


def served(value: str) -> Path:
    """Return the file behind the first address in a piece of HTML."""
    found = re.search(r'(?:href|src)="\./gradio_api/file=([^"]+)"', value)
    assert found is not None, value
    return Path(unquote(found[1]))


def test_the_newest_first_and_failed_ones_apart(desk: Desk, shelf: Gallery) -> None:
    jobs = [drawn(desk, f"house {i}") for i in range(3)]
    failed = drawn(desk, "FAULT")
    assert listed(shelf) == [job.id for job in reversed(jobs)]
    page = shelf.cards_after("", "Failed", gallery.EVERY_MODEL, False, [])
    assert page[2] == [failed.id] and "a test asked for this error" in page[0]


def test_search_star_and_model(desk: Desk, shelf: Gallery) -> None:
    one, other = drawn(desk, "a red boat"), drawn(desk, "a blue boat")
    desk.star(one.id, True)
    every = gallery.EVERY_MODEL
    assert listed(shelf, "BOAT red", "All", every, False, []) == [one.id]
    assert listed(shelf, "", "All", every, True, []) == [one.id]
    assert listed(shelf, "", "Pictures", one.model, False, []) == [other.id, one.id]
    assert shelf.cards_after("", "All", "no such model", False, [])[0].count(gallery.NO_MATCH) == 1
    for show in ("Clips", "Comparisons"):
        assert gallery.NONE[show] in shelf.cards_after("", show, every, False, [])[0]
    assert one.model in shelf.cards_after(*FIRST)[4]["choices"]


def test_the_cells_of_a_grid_are_shown_apart(desk: Desk, shelf: Gallery) -> None:
    one, cell = drawn(desk, "a boat"), drawn(desk, "a boat", tab="compare")
    every = gallery.EVERY_MODEL
    for show in ("All", "Pictures"):
        page = shelf.cards_after("", show, every, False, [])
        assert page[2] == [one.id] and ">1 result<" in page[1]
    assert listed(shelf, "boat", "Comparisons", every, False, []) == [cell.id]


def test_an_empty_store_says_what_to_do(shelf: Gallery) -> None:
    assert gallery.EMPTY in shelf.cards_after(*FIRST)[0]


def test_pages(desk: Desk, shelf: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "SIZE", 2)
    jobs = [drawn(desk, f"house {i}").id for i in range(3)]
    tally, ids, before, _, newer, older = shelf.cards_after(*FIRST)[1:]
    assert ids == [jobs[2], jobs[1]] and "1–2 of 3" in tally
    assert (newer["visible"], older["visible"]) == (False, True)
    second = shelf.cards_after(*FIRST[:4], [*before, ids[-1]])
    assert second[2] == [jobs[0]] and "3–3 of 3" in second[1]
    assert (second[5]["visible"], second[6]["visible"]) == (True, False)
    desk.delete(jobs[0])  # the last one of its page: the page before is shown
    assert shelf.cards_after(*FIRST[:4], second[3])[2] == [jobs[2], jobs[1]]


def test_a_card_has_the_outputs_and_no_markup_of_a_prompt(desk: Desk, shelf: Gallery) -> None:
    drawn(desk, WICKED, num_outputs_per_prompt=2)
    found = shelf.cards_after(*FIRST)[0]
    assert "<img src=x" not in found and "&lt;img src=x onerror=&quot;1&quot;&gt; ${1+1} {{x}}" in found
    wishes = re.findall(r'data-small="([^"]+)"', found)
    assert len(wishes) == 2
    thumbnails = gallery.small(desk, wishes)
    for entry in thumbnails:
        with Image.open(served(f'src="{entry}"')) as image:
            assert image.size == (64, 64)
    assert "data-small" not in shelf.cards_after(*FIRST)[0] and thumbnails[0] in shelf.cards_after(*FIRST)[0]


def test_a_browser_gets_thumbnails_of_outputs_alone(desk: Desk) -> None:
    job = drawn(desk)
    wrong = ["", "x", "../../etc/passwd 0", f"{job.id} 7", f"{job.id} -1", f"{job.id} x", None, f"{job.id}"]
    assert gallery.small(desk, wrong) == [""] * len(wrong)
    assert gallery.small(desk, "no list") == []


def test_files_that_are_gone_or_expired_have_a_placeholder(
    desk: Desk, shelf: Gallery, handlers: dict[int, Any]
) -> None:
    gone, expired = drawn(desk, "gone"), drawn(desk, "expired")
    gallery.small(desk, [f"{expired.id} 0"])
    Path(gone.artifacts[0].location).unlink()
    expired.expired = True
    desk.queue.keep(expired)
    found = shelf.cards_after(*FIRST)[0]
    assert "The file is gone" in found and "The file has expired" in found and "<img" not in found
    for job, words in ((gone, "The file is gone."), (expired, "The file has expired.")):
        about = shelf.told_of(job.id, 0, [job.id])
        assert words in about[1] and "<img" not in about[1]
        assert [about[i]["visible"] for i in (6, 7, 8)] == [False, False, False]
        with pytest.raises(NotFound, match=words.removesuffix(".").lower()):
            shelf.downloaded(job.id, 0, plain=False)
        with pytest.raises(gr.Error, match=words.removesuffix(".").lower()):
            handlers[shelf.use._id]([job.id, 0])
    for index in (1, -1):
        with pytest.raises(NotFound, match="the results have changed"):
            shelf.downloaded(gone.id, index, plain=False)
    with pytest.raises(NotFound, match="none of these jobs has files any more"):
        shelf.archived([gone.id, expired.id], plain=False)


def test_the_large_view_of_a_failed_job(desk: Desk, shelf: Gallery) -> None:
    about = shelf.told_of(drawn(desk, "FAULT").id, 0, [])
    assert 'role="alert">a test asked for this error' in about[1]
    assert "FAULT" in about[3] and about[7]["visible"] is False


def test_the_large_view_goes_through_outputs_and_cards(desk: Desk, shelf: Gallery) -> None:
    one, two = drawn(desk, "one", num_outputs_per_prompt=2), drawn(desk, "two")
    about = shelf.told_of(one.id, 1, [two.id, one.id])
    assert about[0] == [one.id, 1] and served(about[1]) == Path(one.artifacts[1].location)
    assert "Seed 6" in about[2] and "<th>Seed</th><td>6</td>" in about[3]
    assert (about[9]["interactive"], about[10]["interactive"]) == (True, False)
    assert shelf.told_of(one.id, 99, [])[0] == [one.id, 1]


def test_downloads_with_and_without_the_recipe(desk: Desk, shelf: Gallery) -> None:
    job, other = drawn(desk, "a boat", num_outputs_per_prompt=2), drawn(desk, "another")
    assert served(shelf.downloaded(job.id, 1, plain=False)) == Path(job.artifacts[1].location)
    plain = served(shelf.downloaded(job.id, 1, plain=True))
    assert plain.name == Path(job.artifacts[1].location).name
    with pytest.raises(InputError, match="no recipe inside"):
        recipe_file.read_recipe(plain)
    packed = served(shelf.archived([job.id, other.id, "img_gone"], plain=False))
    assert packed.name == "sgdiff-app-2-results.zip"
    with zipfile.ZipFile(packed) as archive:
        assert len(archive.namelist()) == 3


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is told in toasts."""
    found = list[str]()
    monkeypatch.setattr(gr, "Info", lambda message, **rest: found.append(message))
    return found


def test_what_is_done_with_several_is_done_with_those_that_are_there(
    desk: Desk, shelf: Gallery, handlers: dict[Any, Any], said: list[str]
) -> None:
    one, other, expired = drawn(desk, "one"), drawn(desk, "other"), drawn(desk, "expired")
    expired.expired = True
    desk.queue.keep(expired)
    ids = [one.id, "img_gone", other.id, "img_gone"]
    marked = SimpleNamespace(_data={"ids": ids, "starred": True})
    assert handlers[shelf.cards._id, "like"](marked, *FIRST)[2] == [expired.id, other.id, one.id]
    assert [desk.get(job.id).starred for job in (one, other)] == [True, True]
    assert said == ["1 is not there any more"]
    marked._data["ids"] = [*ids, expired.id]
    packed = served(handlers[shelf.cards._id, "download"](marked))
    with zipfile.ZipFile(packed) as archive:
        assert len(archive.namelist()) == 2
    assert said[1:] == ["2 are not there any more"]
    assert handlers[shelf.cards._id, "delete"](marked, *FIRST)[2] == []
    assert said[2:] == ["3 deleted. 1 is not there any more"]
    handlers[shelf.cards._id, "delete"](marked, *FIRST)
    assert said[3:] == ["4 are not there any more"]


def test_delete_asks_first(desk: Desk, built: tuple[Gallery, dict[Any, Any]], handlers: dict[Any, Any]) -> None:
    shelf, _ = built
    job = drawn(desk)
    assert handlers[shelf.delete._id]([job.id, 0], False, *FIRST) == [gr.skip()] * (len(shelf.listed) + 3)
    assert desk.get(job.id).artifacts
    assert "window.confirm(" in gallery.SURE_JS and "window.confirm(" in str(shelf.cards.js_on_load)
    handlers[shelf.delete._id]([job.id, 0], True, *FIRST)
    with pytest.raises(NotFound):
        desk.get(job.id)


def test_what_a_browser_marks_is_checked() -> None:
    assert gallery.ids_of({"ids": ["a", 1, None, "b", "a"]}) == ["a", "b"]
    assert gallery.ids_of({"ids": "a"}) == gallery.ids_of(None) == gallery.ids_of({}) == []


def test_settings_of_an_output_make_it_again(desk: Desk) -> None:
    job = drawn(desk, "a boat", num_outputs_per_prompt=3)
    request = desk.settings(job, 2)
    assert (request.seed, request.num_outputs_per_prompt, request.loras) == (7, 1, None)
    job.loras = (LoraRef(name="pixel-art", path="pixel-art"),)  # the set of the server was another one then
    assert desk.settings(job).loras == job.loras


def test_inputs_come_back_with_the_settings(desk: Desk, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.new("RGB", (64, 64), "teal").save(source)
    job = drawn(desk, "an edit", image_path=[str(source)])
    with gr.Blocks():
        page = Page(desk)
        with gr.Tabs() as page.tabs, page.tab("edit", "Edit"):
            one = gr.Image(type="filepath")
            page.forms["edit"] = form = Form(desk.spec)
            for name in ("prompt", "seed", "height", "width"):
                form.widget(name)
    page.takes_input("edit", [one], lambda path: [path])
    *_, shown = page.reloaded(job)
    assert Path(shown).read_bytes() == source.read_bytes()
    assert not Path(shown).is_relative_to(desk.options.inputs)  # which is not served
    desk.inputs(job)[0].unlink()
    with pytest.warns(UserWarning, match="Picture: it is not here any more"):  # a toast, where there is a browser
        assert len(page.reloaded(job)) == len(page.reload_outputs)


def test_a_clip_plays(desk: Desk) -> None:
    job = drawn(desk)
    job.artifacts = [type(job.artifacts[0])(job.artifacts[0].location, "video/mp4", 64, 64, 12, 5, 4)]
    assert "<video src=" in cards.large(job, 0, desk.thumbnails.find)
    assert "▶ 3.0 s" in cards.badge(job)
