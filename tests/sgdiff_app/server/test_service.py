"""What routes share: waiting until requests can run, and the names of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import env
from engine.errors import Draining, NotFound, SgdiffError, WorkerDied
from engine.types import Request
from sgdiff_app import config, serve
from sgdiff_app.server.errors import ApiError
from sgdiff_app.server.service import Service, ending
from tests.sgdiff_app.server.serving import Running

Make = Callable[..., Service]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Services whose worker is never started."""
    made: list[Service] = []

    def begin(*flags: str) -> Service:
        argv = ["--headless", "--data-dir", str(tmp_path / "data"), "--output-path", str(tmp_path / "out"), *flags]
        made.append(serve.build(config.load(argv, "serve"), env.read()))
        return made[-1]

    yield begin
    for service in made:
        service.queue.close()


def failure(service: Service, seconds: float = 5) -> SgdiffError:
    async def wait() -> None:
        await asyncio.wait_for(service.ready(), seconds)

    with pytest.raises(SgdiffError) as found:
        asyncio.run(wait())
    return found.value


def test_a_request_waits_for_a_loading_model_and_not_for_ever(make: Make) -> None:
    error = failure(make("--ready-timeout", "100ms"))
    assert isinstance(error, ApiError)
    assert (error.status, error.code, error.headers) == (503, "model_loading", {"retry-after": "30"})


def test_it_waits_for_a_warm_up_as_long_as_that_takes(make: Make) -> None:
    service = make("--ready-timeout", "10ms")
    supervisor = service.queue.supervisor
    supervisor.health = "warming"

    async def wait() -> bool:
        waiting = asyncio.create_task(service.ready())
        await asyncio.sleep(0.1)
        early = waiting.done()
        supervisor.health = "ready"
        await asyncio.wait_for(waiting, 5)
        return early

    assert asyncio.run(wait()) is False


def test_it_does_not_wait_for_what_will_not_come(make: Make) -> None:
    service = make()
    service.queue.supervisor.health, service.queue.supervisor.given_up = "unhealthy", True
    error = failure(service)
    assert isinstance(error, WorkerDied) and error.final
    service.queue.draining = True
    assert isinstance(failure(service), Draining)


def test_names_of_the_model(make: Make) -> None:
    service = make("--served-model-name", "mine", "--model-alias", "other", "--model-alias", "third")
    assert service.name == "mine"
    for name in (None, "mine", "other", "third", "tiny-scenes"):
        service.check_model(name)
    with pytest.raises(ApiError, match="the model 'fourth' is not served here; it is 'mine'") as found:
        service.check_model("fourth")
    assert (found.value.status, found.value.code, found.value.param) == (404, "model_not_found", "model")


def test_following_a_job_to_its_end(server: Running) -> None:
    async def follow() -> list[str]:
        service = server.service
        job = await service.submit(Request(prompt="slow", height=64, width=64, num_inference_steps=3), "image")
        heard: list[str] = []
        async with service.following(job.id) as (found, changes):
            while not found.finished or heard[-1:] != ["status"]:
                change = await changes.next(timeout=5)
                assert change is not None
                heard.append(change)
        return heard

    heard = asyncio.run(follow())
    assert "progress" in heard and heard[-1] == "status"


def test_following_what_is_not_there(server: Running) -> None:
    async def follow() -> None:
        async with server.service.following("img_nothing"):
            raise AssertionError

    with pytest.raises(NotFound):
        asyncio.run(follow())


def test_nobody_speaks_on_a_line_that_nobody_uses() -> None:
    async def wait() -> None:
        assert await ending().next(timeout=0.01) is None

    asyncio.run(wait())


def test_who_waits_for_the_end_is_not_woken_before(server: Running) -> None:
    async def wait() -> tuple[int, str]:
        line = ending()
        job = await server.service.submit(Request(prompt="slow", num_inference_steps=5), "image", line=line)
        change = await line.next(timeout=5)
        assert job.finished
        return line.changes.qsize(), str(change)

    assert asyncio.run(wait()) == (0, "status")
