"""Ids that sort by creation, and jobs as the store keeps them."""

from __future__ import annotations

import itertools
import json
import threading

import pytest

from engine import schema
from engine.jobs import job as jobs
from engine.jobs.job import Job, from_json, new_id, order_of, to_json
from engine.types import Artifact, LoraRef, Request


def made(**fields: object) -> Job:
    request = schema.read(Request, {"prompt": "x", "loras": [{"path": "a.safetensors"}], "seed": [3, 4], "n": 2})
    return Job(new_id("img"), "image", "m", "m", request, request.replace(width=8, height=8), **fields)  # type: ignore[arg-type]


def test_ids_sort_by_creation_and_are_safe_in_urls() -> None:
    ids = [new_id("img") for _ in range(2000)]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)
    assert all(name.startswith("img_") and name.replace("_", "").isalnum() and len(name) == 30 for name in ids)


def test_ids_stay_unique_and_in_order_in_two_threads() -> None:
    found: list[list[str]] = [[], []]
    threads = [
        threading.Thread(target=lambda own=own: own.extend(new_id("img") for _ in range(3000)))  # type: ignore[misc]
        for own in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in found)
    assert len({*found[0], *found[1]}) == 6000


def test_ids_grow_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id("img")
    monkeypatch.setattr(jobs, "wall", lambda: 1.0)
    assert first < new_id("img") < new_id("img")


def test_nobody_can_guess_the_next_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within a millisecond, when ids are made from the one before."""
    monkeypatch.setattr(jobs, "wall", lambda: 2e9)
    monkeypatch.setattr(jobs, "_clock", jobs._Clock())
    numbers = [int(new_id("img")[4:], 36) for _ in range(50)]
    gaps = {after - before for before, after in itertools.pairwise(numbers)}
    assert len(gaps) == 49 and min(gaps) > 1


@pytest.mark.parametrize(
    "text", ["", "img_", "nope", "req_01M7YDE9255HQ719BBZCCBRKPC", "img_01m7yde9255hq719bbzccbrkpc", "img_1; --"]
)
def test_what_is_no_id_has_no_order(text: str) -> None:
    assert order_of(text) is None


def test_images_and_videos_sort_together() -> None:
    image, video = new_id("img"), new_id("video")
    orders = [order_of(image), order_of(video)]
    assert None not in orders and orders == sorted(orders)  # type: ignore[type-var]


def test_a_job_survives_the_store() -> None:
    job = made(
        detached=False,
        loras=(LoraRef(name="a", path="a.safetensors", scale=0.5),),
        artifacts=[Artifact("x.png", "image/png", 8, 8, 1, 3, key="k")],
        recipes=[{"sgdiff": 1}],
        inputs=("in.png",),
        files=("thumb.webp",),
        notes={"remixed_from": "video_1"},
        usage={"text": 3},
        stages={"denoising": 1.5},
        steps_ms=[0.7, 0.8],
        error={"code": "timeout", "message": "slow"},
    )
    kept = from_json(json.loads(json.dumps(to_json(job))))
    assert all(getattr(kept, name) == getattr(job, name) for name in jobs.KEPT)
    assert kept.request.loras == (LoraRef(path="a.safetensors"),)


def test_a_job_of_an_earlier_version_lacks_what_that_did_not_know() -> None:
    kept = to_json(made())
    del kept["steps_ms"]
    assert from_json(kept).steps_ms == []


def test_what_only_the_process_knows_is_not_kept() -> None:
    job = made(setting=3, preview=b"jpeg", cancelled=True, deleted=True, drawn=1)
    kept = from_json(json.loads(json.dumps(to_json(job))))
    assert (kept.setting, kept.preview, kept.cancelled, kept.deleted, kept.drawn) == (None, None, False, False, 0)


def test_how_long_it_waited() -> None:
    assert made(created_at=10.0, started_at=12.5, completed_at=20.0).queue_s == 2.5
    assert made(created_at=10.0, completed_at=11.0).queue_s == 1.0
    assert made(created_at=10.0, started_at=5.0).queue_s == 0.0  # somebody set the clock
    assert made(created_at=10.0, started_at=5.0, waited_s=2.0).queue_s == 2.0
    assert 0 <= made(created_at=1e12).queue_s < 5
    assert from_json(json.loads(json.dumps(to_json(made(created_at=1e12))))).queue_s == 0.0
