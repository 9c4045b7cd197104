"""The Video object: what it says of a job in each state, and how soon to ask again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.jobs import Job
from engine.types import Artifact, Request
from sgdiff_app.server import video_object

ID = "video_01K9ABCDEF0123456789ABCDEF"


def job(**changes: Any) -> Job:
    request = Request(prompt="a boat")
    resolved = request.replace(width=64, height=48, num_frames=81, fps=16, seed=(5, 9), num_outputs_per_prompt=2)
    made = Job(ID, "video", "served", "path", request, resolved, created_at=1000.9)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def told(
    made: Job, eta_s: float | None = None, cloud: Any = None, look: Any = video_object.video, **options: Any
) -> dict[str, Any]:
    """The object, from a queue in which every job is the third."""
    queue = SimpleNamespace(
        position=lambda _: 2 if made.status == "queued" else None,
        eta_s=lambda _: eta_s,
        delivery=SimpleNamespace(cloud=cloud),
    )
    given = SimpleNamespace(**{"public_base_url": None, "root_path": "", **options})
    service: Any = SimpleNamespace(queue=queue, options=given)
    return dict(look(service, made))


def artifact(index: int, **changes: Any) -> Artifact:
    given = {"width": 128, "height": 96, "frames": 161, "seed": 5 + index, "fps": 32, **changes}
    return Artifact(f"/outputs/{index}.mp4", "video/mp4", **given)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("queued", "queued"), ("running", "in_progress"), ("done", "completed"), ("failed", "failed"),
        ("cancelled", "failed"),
    ],
)  # fmt: skip
def test_there_are_four_words_for_a_status(status: str, word: str) -> None:
    shown = told(job(status=status))
    assert shown["status"] == word
    assert shown["queue_position"] == (2 if status == "queued" else None)


def test_before_the_end_it_says_what_is_planned() -> None:
    shown = told(job(status="running", percent=37, started_at=1002.0), eta_s=21.55555)
    planned = {"size": "64x48", "num_frames": 81, "fps": 16, "seconds": "5", "seed": 5, "num_outputs": 2}
    assert planned.items() <= shown.items()
    times = {"created_at": 1000, "completed_at": None, "queue_time_s": 1.1, "eta_s": 21.556, "inference_time_s": None}
    assert times.items() <= shown.items()
    assert (shown["progress"], shown["model"], shown["quality"]) == (37, "served", "standard")


def test_what_changes_before_the_end_is_not_told_before_it() -> None:
    """The status of a job that ends is what changes last."""
    made = job(status="running", percent=100, completed_at=1010.0, expires_at=1020.0, artifacts=[artifact(0)])
    made.error = {"code": "timeout", "message": "no"}
    early = {"status": "in_progress", "progress": 99, "completed_at": None, "expires_at": None, "error": None}
    assert {**early, "urls": None, "size": "64x48"}.items() <= told(made).items()


@pytest.mark.parametrize("status", ["queued", "running", "done", "failed"])
def test_a_new_one_is_queued_however_far_it_is_by_now(status: str) -> None:
    made = job(status=status, percent=50, started_at=1000.0, completed_at=1001.0, artifacts=[artifact(0)])
    shown = told(made, look=video_object.accepted)
    assert {
        "status": "queued",
        "progress": 0,
        "completed_at": None,
        "error": None,
        "urls": None,
    }.items() <= shown.items()
    assert shown["queue_position"] == (2 if status == "queued" else 0)
    assert made.status == status


def test_afterwards_it_says_what_the_file_is() -> None:
    made = job(status="done", percent=100, completed_at=1010.5, artifacts=[artifact(0, seed=77), artifact(1)])
    made.notes = {"quality": "low", "remixed_from": "video_0"}
    shown = told(made)
    file = {"size": "128x96", "num_frames": 161, "fps": 32, "seconds": "5", "seed": 77}
    assert file.items() <= shown.items()
    assert (shown["quality"], shown["remixed_from_video_id"], shown["completed_at"]) == ("low", "video_0", 1010)


def test_a_clip_of_a_moment_lasts_a_second() -> None:
    made = job()
    made.resolved = made.resolved.replace(num_frames=1)
    assert told(made)["seconds"] == "1"


def test_a_size_that_the_model_decides_is_told_when_it_is_known() -> None:
    made = job()
    made.resolved = made.resolved.replace(width=None, height=None, num_frames=None, fps=None)
    assert {"size": "auto", "num_frames": None, "fps": 16, "seconds": "1"}.items() <= told(made).items()


def test_links_are_paths_unless_the_server_has_a_base_or_a_bucket() -> None:
    made = job(status="done", artifacts=[artifact(0), artifact(1)])
    path = f"/v1/videos/{ID}/content"
    assert told(made)["urls"] == [f"{path}?variant=0", f"{path}?variant=1"]
    assert told(made, public_base_url="https://a.example/")["url"] == f"https://a.example{path}?variant=0"
    cloud = SimpleNamespace(url=lambda key: f"https://bucket.example/{key}")
    made.artifacts = [artifact(0, key="k0"), artifact(1)]  # the second upload failed
    assert told(made, cloud=cloud)["urls"] == ["https://bucket.example/k0", f"{path}?variant=1"]
    assert "/outputs/" not in str(told(made, cloud=cloud))


def test_what_has_expired_has_no_links() -> None:
    shown = told(job(status="done", artifacts=[artifact(0)], expired=True, expires_at=1020.7))
    assert (shown["url"], shown["urls"], shown["expires_at"]) == (None, None, 1020)


@pytest.mark.parametrize(
    ("eta_s", "pause"), [(None, "1000"), (0.0, "250"), (3.0, "250"), (20.0, "1000"), (40.0, "2000"), (9999.0, "2000")]
)
def test_how_soon_to_ask_again(eta_s: float | None, pause: str) -> None:
    shown = told(job(status="running"), eta_s=eta_s)
    assert video_object.poll_headers(shown) == {"openai-poll-after-ms": pause}


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
def test_nobody_asks_again_for_what_has_ended(status: str) -> None:
    assert video_object.poll_headers(told(job(status=status))) == {}
