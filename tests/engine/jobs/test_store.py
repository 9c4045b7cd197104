"""Jobs in SQLite: written, found again, listed page by page."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OutputError, UsageError
from engine.jobs import Job, JobStore
from engine.jobs.job import new_id
from engine.jobs.store import BUSY_S, VERSION
from engine.profiler import monotonic
from engine.types import Request

REQUEST = Request(prompt="x", seed=1, width=8, height=8)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    found = JobStore(tmp_path / "deep" / "jobs.sqlite3")
    yield found
    found.close()


def put(store: JobStore, kind: Any = "image", **fields: Any) -> Job:
    job = Job(new_id("video" if kind == "video" else "img"), kind, "m", "m", REQUEST, REQUEST, **fields)
    store.add(job)
    return job


def walk(store: JobStore, limit: int, **wanted: Any) -> list[str]:
    """Every id, a page after the other."""
    found, after, more = list[str](), None, True
    while more:
        page, more = store.page(limit=limit, after=after, **wanted)
        found += [job.id for job in page]
        after = found[-1]
    return found


def test_what_was_written_is_found_by_another_process(store: JobStore, tmp_path: Path) -> None:
    job = put(store)
    job.status, job.percent = "done", 100
    store.save(job)
    assert store.get("img_nope") is None
    store.close()
    other = JobStore(tmp_path / "deep" / "jobs.sqlite3")
    found = other.get(job.id)
    other.close()
    assert found is not None and (found.status, found.percent, found.request) == ("done", 100, REQUEST)


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_the_cursor_visits_every_job_once(store: JobStore, descending: bool, limit: int) -> None:
    ids = [put(store, kind).id for kind in ("image", "video", "edit", "video", "image", "image", "edit")]
    ids.sort(key=lambda name: name.rpartition("_")[2], reverse=descending)
    assert walk(store, limit, descending=descending) == ids


def test_the_cursor_survives_that_its_job_is_deleted(store: JobStore) -> None:
    ids = [put(store).id for _ in range(4)]
    store.delete(ids[1])
    page, more = store.page(after=ids[1], limit=2, descending=False)
    assert ([job.id for job in page], more) == (ids[2:], False)
    page, more = store.page(after=ids[1], limit=2)
    assert ([job.id for job in page], more) == (ids[:1], False)


@pytest.mark.parametrize("after", ["nope", "", "video_1 or 1=1"])
def test_a_cursor_that_is_no_id(store: JobStore, after: str) -> None:
    with pytest.raises(UsageError, match="after: must be the id of a job") as caught:
        store.page(after=after)
    assert (caught.value.code, caught.value.param) == ("invalid_cursor", "after")


def test_pages_are_filtered(store: JobStore) -> None:
    first, second, third = put(store, "video"), put(store), put(store, "video", status="done", starred=True)
    assert walk(store, 1, kind="video", descending=False) == [first.id, third.id]
    assert walk(store, 5, status="queued", descending=False) == [first.id, second.id]
    assert walk(store, 5, kind="video", status="done") == [third.id]
    assert walk(store, 5, starred=True) == [third.id]


def test_what_is_deleted_stays_so(store: JobStore) -> None:
    job = put(store)
    store.delete(job.id)
    store.save(job)
    assert store.get(job.id) is None


def test_what_was_not_finished_comes_back_in_order(store: JobStore) -> None:
    jobs = [put(store, status=status) for status in ("running", "queued", "done", "failed", "cancelled", "queued")]
    assert [job.id for job in store.unfinished()] == [jobs[0].id, jobs[1].id, jobs[5].id]


def test_a_status_alone_is_enough_to_be_unfinished_no_more(store: JobStore) -> None:
    job = put(store)
    job.status = "running"
    store.mark(job)
    assert [found.id for found in store.page(status="running")[0]] == [job.id]


def test_expired_jobs_are_found_once(store: JobStore) -> None:
    early, late = put(store, expires_at=10.0), put(store, expires_at=20.0)
    put(store)
    assert [job.id for job in store.expired(15.0)] == [early.id]
    early.expired = True
    store.save(early)
    assert [job.id for job in store.expired(15.0)] == [early.id]  # until its files are gone
    early.removed = True
    store.save(early)
    assert [job.id for job in store.expired(25.0)] == [late.id]
    kept = store.get(early.id)
    assert kept is not None and kept.expires_at == 10.0  # still told


def test_a_row_of_another_version_is_passed_over(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    job, other = put(store), put(store)
    store.db.execute('update jobs set body = \'{"request": {"nonsense": 1}}\' where id = ?', (job.id,))
    assert [found.id for found in store.page()[0]] == [other.id]
    assert "written by another version" in caplog.text
    assert store.delete(job.id) and not store.delete(job.id)


@pytest.mark.parametrize("descending", [True, False])
def test_rows_that_are_passed_over_hide_no_others(store: JobStore, descending: bool) -> None:
    """Also where a whole page is passed over."""
    jobs = [put(store) for _ in range(9)]
    for job in (jobs[1], *jobs[3:7]):
        store.db.execute("update jobs set body = '{}' where id = ?", (job.id,))
    left = [job.id for job in (jobs[0], jobs[2], *jobs[7:])]
    for limit in (1, 2, 3, 4):
        assert walk(store, limit, descending=descending) == (left[::-1] if descending else left)


def test_a_key_is_bound_to_the_first_job_for_a_day(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.remember("key", "digest", "img_1") is None
    assert store.remember("key", "other", "img_2") == ("digest", "img_1")
    store.forget("key", "img_2")
    assert store.remember("key", "other", "img_2") == ("digest", "img_1")
    store.forget("key", "img_1")
    assert store.remember("key", "other", "img_2") is None
    monkeypatch.setattr("engine.jobs.store.wall", lambda: 1e12)
    assert store.remember("key", "third", "img_3") is None


def test_threads_may_write_at_once(store: JobStore) -> None:
    threads = [threading.Thread(target=lambda: [put(store) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(walk(store, 100)) == 200


def test_a_database_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "no.sqlite3").write_text("no database, and long enough to tell" * 100)
    for path in (tmp_path / "file" / "jobs.sqlite3", tmp_path / "no.sqlite3"):
        with pytest.raises(OutputError, match="the job database cannot be opened"):
            JobStore(path)


def test_the_database_is_closed(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite3")
    store.close()
    with pytest.raises(OutputError, match="closed"):
        store.get("img_1")


def test_one_process_at_a_time_has_a_database(store: JobStore, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="deep: is in use by another server; choose another --data-dir"):
        JobStore(tmp_path / "deep" / "jobs.sqlite3")
    store.close()
    JobStore(tmp_path / "deep" / "jobs.sqlite3").close()
    JobStore(":memory:").close()
    assert not Path(":memory:.lock").exists()


def test_a_database_of_a_newer_program_is_left_alone(store: JobStore, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "jobs.sqlite3"
    assert store.db.execute("pragma user_version").fetchone() == (VERSION,)
    store.db.execute("alter table jobs add column more text default 'x'")
    put(store)  # columns have names
    store.db.execute(f"pragma user_version = {VERSION + 1}")
    store.close()
    for _ in range(2):  # the lock is free again
        with pytest.raises(OutputError, match=f"newer version of this program: format {VERSION + 1}"):
            JobStore(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma user_version").fetchone() == (VERSION + 1,)


def test_another_program_that_writes_is_not_waited_for_long(store: JobStore, tmp_path: Path) -> None:
    """The message names no place: clients see it."""
    job = put(store)
    with closing(sqlite3.connect(tmp_path / "deep" / "jobs.sqlite3", isolation_level=None)) as other:
        other.execute("begin immediate")
        begin = monotonic()
        for write in (store.save, store.mark):
            with pytest.raises(OutputError, match="the job database cannot be used: database is locked") as caught:
                write(job)
            assert str(tmp_path) not in caught.value.message
        assert monotonic() - begin < 2 * BUSY_S + 2
        other.execute("rollback")
    store.save(job)


def prompt(store: JobStore, text: str | None, **fields: Any) -> Job:
    """Add a job of a prompt; `negative_prompt` is the request's, the rest its own."""
    request = Request(prompt=text, negative_prompt=fields.pop("negative_prompt", None))
    job = Job(new_id("img"), "image", fields.pop("model", "m"), "m", request, request, **fields)
    store.add(job)
    return job


def test_a_search_finds_all_its_words_in_any_case(store: JobStore) -> None:
    boat = prompt(store, "A red BOAT\nat sunset", negative_prompt="Nebel über Fluß")
    owl = prompt(store, "an owl at night", model="tiny-scenes")
    sign = prompt(store, 'a 100% "sign"', starred=True)
    for words, found in (
        ("boat sunset", [boat]),
        ("SUNSET red", [boat]),
        ("ÜBER fluss", [boat]),
        ("boat owl", []),
        ("at", [owl, boat]),
        ("tiny night", [owl]),
        ("100%", [sign]),
        ("%", [sign]),
        ('"sign"', [sign]),
        ("_", [sign, owl, boat]),  # every id has one
        (owl.id.lower(), [owl]),
        ("request prompt", []),
        ("  ", [sign, owl, boat]),
        ("\ud800", []),
    ):
        page, more = store.page(search=words)
        assert ([job.id for job in page], more) == ([job.id for job in found], False), words
        assert store.count(search=words) == len(found)
    assert [job.id for job in store.page(search="at", limit=1)[0]] == [owl.id]
    assert store.page(search="at", limit=1)[1] is True
    assert store.count(search="a", starred=True) == 1
    with pytest.raises(UsageError, match="search: must have at most 500 characters, got 501"):
        store.page(search="x" * 501)


def test_pages_and_counts_of_what_is_finished_and_of_a_model(store: JobStore) -> None:
    jobs = [prompt(store, "x", status=status) for status in ("queued", "running", "done", "failed", "cancelled")]
    other = prompt(store, None, model="z", status="done")
    assert walk(store, 2, finished=True) == [job.id for job in (other, *reversed(jobs[2:]))]
    assert walk(store, 2, finished=False) == [jobs[1].id, jobs[0].id]
    assert walk(store, 2, model="z") == [other.id]
    assert (store.count(), store.count(finished=True, model="m"), store.count(model="q")) == (6, 3, 0)
    assert store.models() == ["m", "z"]


def test_what_is_deleted_is_searched_no_more(store: JobStore) -> None:
    job = prompt(store, "boat", model="gone")
    store.delete(job.id)
    assert store.db.execute("select count(*) from told").fetchone() == (0,)
    assert store.models() == []


def test_a_job_that_cannot_be_searched_is_not_added_either(store: JobStore) -> None:
    store.db.execute("create trigger no before insert on told begin select raise(abort, 'full'); end")
    with pytest.raises(OutputError, match="full"):
        prompt(store, "boat")
    assert store.count() == 0
    store.db.execute("drop trigger no")
    prompt(store, "boat")
    assert store.count(search="boat") == 1


def test_a_database_of_the_first_version_is_searched_too(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    store = JobStore(path)
    prompt(store, "Boat")
    store.db.executescript("drop trigger forgotten; drop table told; pragma user_version = 1")
    store.close()
    store = JobStore(path)
    assert (store.count(search="boat"), store.models()) == (1, ["m"])
    store.close()


def test_a_database_of_the_second_version_knows_the_tabs_of_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    store = JobStore(path)
    prompt(store, "Boat", notes={"tab": "compare"})
    other = prompt(store, "House")
    store.db.executescript("alter table told drop column tab; pragma user_version = 2")
    store.close()
    store = JobStore(path)
    assert (store.count(search="boat", tab="compare"), store.count(tab="edit")) == (1, 0)
    assert [job.id for job in store.page(without_tab="compare")[0]] == [other.id]
    assert store.delete(other.id) and store.count(without_tab="compare") == 0
    store.close()
