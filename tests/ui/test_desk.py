"""The desk: what is asked for, whose jobs are whose, and what a page that follows them is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from PIL import Image

from engine.errors import NotFound, UsageError
from engine.jobs import Job
from tests.ui.desks import desk_at, following
from ui.desk import Desk, Follower, Snapshot


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_at(tmp_path_factory.mktemp("desk"), "--max-running", "1") as found:
        yield found


def ask(desk: Desk, prompt: str, client: str, tab: str = "generate", **values: object) -> Job:
    return desk.submit(desk.request({"prompt": prompt, **values}), client, tab)


def over(desk: Desk, client: str) -> list[Snapshot]:
    """Follow the jobs of a client to their end."""
    return list(following(desk, client))


def test_the_models_own_values_stand_for_what_is_left_empty(desk: Desk) -> None:
    assert desk.request({"prompt": "a hill", "seed": None}).seed is None
    assert desk.defaults()["num_inference_steps"] == 20
    job = ask(desk, "a hill", "defaults", num_inference_steps=3)
    assert (job.resolved.num_inference_steps, job.resolved.true_cfg_scale) == (3, 4.0)


def test_a_wrong_value_is_refused_before_it_is_queued(desk: Desk) -> None:
    with pytest.raises(UsageError, match="max_sequence_length: must be at most 64 for tiny-scenes, got 65"):
        ask(desk, "a hill", "wrong", max_sequence_length=65)
    with pytest.raises(UsageError, match="quality: must be one of auto, low"):
        desk.request({"prompt": "a hill", "quality": "best"})
    assert desk.jobs_of("wrong") == []


def test_jobs_are_told_apart_by_client_and_tab(desk: Desk) -> None:
    first, second = ask(desk, "one", "a"), ask(desk, "two", "a", "edit")
    ask(desk, "three", "b")
    last = over(desk, "a")[-1]
    assert [job.id for job in last.jobs] == [second.id, first.id]
    assert [job.id for job in last.of_tab("edit")] == [second.id]
    assert {**first.notes} == {"client": "a", "door": "ui", "tab": "generate"}


def test_who_follows_is_told_of_progress_previews_and_the_end(desk: Desk) -> None:
    job = ask(desk, "a slow hill", "watcher")
    seen = [(found.status, found.step, found.preview) for one in following(desk, "watcher") for found in one.jobs]
    assert seen[-1][0] == "done"
    assert len(over(desk, "watcher")) == 1  # nothing is under way: one look
    assert desk.files(job)[0].read_bytes().startswith(b"\x89PNG")
    assert any(preview for _, _, preview in seen)


def test_a_new_job_is_told_to_who_follows_an_older_one(desk: Desk) -> None:
    ask(desk, "a slow hill", "two")
    page = following(desk, "two")
    next(page)
    later = ask(desk, "a second hill", "two")
    assert later.id in [job.id for job in next(page).jobs]
    assert all(job.finished for job in list(page)[-1].jobs)


def test_leaving_stops_the_listening_and_not_the_job(desk: Desk) -> None:
    job = ask(desk, "a slow hill", "leaver")
    page = following(desk, "leaver")
    next(page)
    assert desk.queue.listeners.looked(job.id)
    page.close()
    assert not desk.queue.listeners.looked(job.id)
    assert over(desk, "leaver")[-1].jobs[0].status == "done"


def test_who_leaves_while_they_are_being_told_listens_to_nothing_afterwards(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread has begun to look up it ends, but for nobody."""
    job = ask(desk, "a slow hill", "hasty")
    looking, go, look = threading.Event(), threading.Event(), desk.snapshot

    def snapshot(client: str, known: dict[str, Job] | None = None) -> Snapshot:
        looking.set()
        assert go.wait(20)
        return look(client, known)

    async def leave() -> None:
        page = asyncio.ensure_future(anext(desk.follow("hasty")))  # type: ignore[arg-type]
        await asyncio.to_thread(looking.wait, 20)
        page.cancel()
        with pytest.raises(asyncio.CancelledError):
            await page
        assert "hasty" not in desk.followers
        go.set()

    monkeypatch.setattr(desk, "snapshot", snapshot)
    asyncio.run(leave())  # waits for its threads
    assert not desk.queue.listeners.looked(job.id)
    monkeypatch.undo()
    over(desk, "hasty")


def test_waiting_jobs_have_a_place_and_can_go_first(desk: Desk) -> None:
    running = ask(desk, "a slow hill", "places")
    while running.status == "queued":
        next(page := following(desk, "places"))
        page.close()
    second, third = ask(desk, "second", "places"), ask(desk, "third", "places")
    assert (desk.snapshot("places").places[second.id], desk.snapshot("places").places[third.id]) == (0, 1)
    desk.raise_priority(third.id)
    assert desk.snapshot("places").places[third.id] == 0
    assert [job.id for job in desk.unfinished()] == [running.id, third.id, second.id]
    over(desk, "places")


def test_cancel_ends_what_runs_first(desk: Desk) -> None:
    running, waiting = ask(desk, "a slow hill", "ends"), ask(desk, "a slow lake", "ends")
    while running.status == "queued":
        next(page := following(desk, "ends"))
        page.close()
    assert desk.cancel_current("ends", "edit") is None
    assert desk.cancel_current("ends", "generate") is running
    assert desk.cancel_current("ends", "generate") is waiting
    assert desk.cancel_current("ends", "generate") is None
    assert {job.status for job in over(desk, "ends")[-1].jobs} == {"cancelled"}


def test_a_star_and_the_end_of_a_job_reach_who_follows(desk: Desk) -> None:
    old = ask(desk, "old", "stars")
    over(desk, "stars")
    ask(desk, "a slow hill", "stars")
    page = following(desk, "stars")
    next(page)
    desk.star(old.id, True)
    assert [job.starred for job in next(page).jobs if job.id == old.id] == [True]
    path = desk.files(old)[0]
    desk.delete(old.id)
    assert old.id not in [job.id for job in next(page).jobs]
    assert not path.exists()
    with pytest.raises(NotFound):
        desk.get(old.id)


def test_a_window_that_deletes_rings_the_others(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else does here: no progress, no beat."""
    old = ask(desk, "old", "windows")
    over(desk, "windows")
    ask(desk, "a slow hill", "windows")
    monkeypatch.setattr("ui.desk.BEAT_S", 3600.0)
    monkeypatch.setattr(Follower, "hear", lambda self, change, job: None)

    async def windows() -> list[Snapshot]:
        found = [desk.follow("windows") for _ in range(2)]
        for window in found:
            assert old.id in [job.id for job in (await anext(window)).jobs]
        steps = [asyncio.ensure_future(anext(window)) for window in found]  # type: ignore[arg-type]
        await asyncio.to_thread(desk.delete, old.id)
        async with asyncio.timeout(20):
            return list(await asyncio.gather(*steps))

    for snapshot in asyncio.run(windows()):
        assert old.id not in [job.id for job in snapshot.jobs]
    monkeypatch.undo()
    over(desk, "windows")


def test_adapters_are_checked_before_a_job_is_taken_in(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.adapters, "allowed", (tmp_path / "loras",))
    with pytest.raises(UsageError, match="is not in a folder from which adapters may be loaded"):
        ask(desk, "a hill", "adapters", loras=[{"path": str(tmp_path / "other.safetensors")}])
    assert desk.jobs_of("adapters") == []


def test_again_asks_for_the_same_with_some_fields_changed(desk: Desk) -> None:
    first = ask(desk, "same", "again", tab="edit", seed=5, num_inference_steps=4)
    second = desk.again(first, "again", seed=6)
    assert (second.request.seed, second.request.num_inference_steps, second.notes["tab"]) == (6, 4, "edit")


def test_inputs_are_kept_with_the_job_and_go_with_it(desk: Desk, tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    job = ask(desk, "a hill", "inputs", image_path=[str(picture)], width=64, height=64)
    (kept,) = job.request.image_path or ()
    picture.unlink()  # the page forgets what was uploaded
    assert job.kind == "edit" and Path(kept).read_bytes() and Path(kept).parent == desk.options.inputs.resolve()
    over(desk, "inputs")
    assert desk.inputs(job) == [Path(kept)]
    desk.delete(job.id)
    assert not Path(kept).exists()


def test_files_of_a_job_are_its_outputs_and_its_edited_clips(desk: Desk, tmp_path: Path) -> None:
    job = ask(desk, "a hill", "files", seed=4, num_outputs_per_prompt=2)
    over(desk, "files")
    assert [desk.output(job.id, i)[1].seed for i in (0, 1)] == [4, 5]
    assert desk.path(job.id, 1) == desk.files(job)[1]
    cut = tmp_path / f"{job.id}_edit1.gif"
    cut.write_bytes(b"GIF89a")
    job.files = (*job.files, str(cut))
    desk.queue.keep(job)
    assert desk.path(job.id, 2) == cut and desk.output(job.id, 2)[1].seed == 4
    for index in (3, -1):
        with pytest.raises(NotFound, match="the results have changed meanwhile; choose one again"):
            desk.output(job.id, index)
    assert desk.settings(job, -1).seed == 4 and desk.settings(job, 9).seed == 4  # of the request itself


def test_a_client_that_comes_back_finds_its_jobs(tmp_path: Path) -> None:
    with desk_at(tmp_path) as before:
        job = ask(before, "a hill", "returning")
        over(before, "returning")
    with desk_at(tmp_path) as after:
        assert [found.id for found in after.jobs_of("returning")] == [job.id]
        assert after.files(after.get(job.id))


def test_many_pages_share_the_updates_of_a_second(desk: Desk) -> None:
    async def paces() -> list[float]:
        found, pages = [desk.pace], list[AsyncGenerator[Snapshot, None]]()
        for count in (4, 56):
            pages += [desk.follow("shares") for _ in range(count)]
            for page in pages[-count:]:
                await anext(page)
            found.append(desk.pace)
        for page in pages:
            await page.aclose()
        return [*found, desk.pace]

    assert asyncio.run(paces()) == [0.2, 0.2, 1.5, 0.2]


def test_who_has_left_is_remembered_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.desk.MOST_CLIENTS", 3)
    job = ask(desk, "a slow hill", "stays")
    page = following(desk, "stays")
    next(page)
    for i in range(10):
        over(desk, f"passer-by_{i}")
    assert [*desk.followers] == ["stays"]
    assert set(desk.ids) == {"stays", "passer-by_8", "passer-by_9"}
    page.close()
    assert desk.followers == {}
    for i in range(3):
        over(desk, f"passer-by_{i}")
    assert "stays" not in desk.ids
    assert [found.id for found in desk.jobs_of("stays")] == [job.id]  # looked up again
    over(desk, "stays")


def test_what_can_be_no_id_is_replaced(desk: Desk) -> None:
    assert desk.client("client_a-1", "abc") == "client_a-1"
    for given in (5, ["client_1"], {}, None, "", "<b>", "x" * 101, "a\n"):
        assert desk.client(given, "abc") == "client_abc"
    assert desk.client(None, "<b>") != desk.client(None, "<b>")  # nor is it made of what can be none


def test_a_window_without_an_id_is_the_same_client_all_the_time(desk: Desk) -> None:
    assert desk.new_client("abc") == desk.new_client("abc") != desk.new_client("abd")
