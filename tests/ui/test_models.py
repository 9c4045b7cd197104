"""Models of the System tab: what is listed, what each offers, and what goes wrong in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine import hub
from engine.downloads import Download
from engine.errors import ModelError, NotFound, UsageError
from tests.ui.desks import desk_at
from ui.desk import Desk
from ui.models import Models

SHIPPED = "tiny-scenes"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("models")
    bundled = hub.bundled(SHIPPED)
    assert bundled is not None
    (folder / "mine").symlink_to(bundled)
    with desk_at(folder, "--model-path", str(folder / "mine")) as found:
        yield found


@pytest.fixture
def models(desk: Desk) -> Models:
    found = Models(desk)
    found.look()
    return found


def test_the_served_one_comes_first_and_others_can_be_used(models: Models, desk: Desk) -> None:
    served, *others = models.rows()
    assert (served.name, served.served) == (desk.queue.served.model_path, True)
    assert SHIPPED in [row.name for row in others]
    assert "black-forest-labs/FLUX.1-dev" in models.absent() and SHIPPED not in models.absent()
    view = models.view()
    assert "in use" in view and f'data-do="use" data-of="{SHIPPED}"' in view
    assert f'data-of="{served.name}"' not in view


def test_another_model_is_served(models: Models, desk: Desk) -> None:
    first = desk.queue.served.model_path
    for name in (SHIPPED, first):
        models.use(name)
        assert models.rows()[0].name == name
        assert desk.queue.supervisor.wait(30, "ready") == "ready"
    assert models.failed is None


def test_what_is_not_in_the_list_cannot_be_served(models: Models, desk: Desk) -> None:
    with pytest.raises(NotFound, match="no model '/etc' on this machine"):
        models.use("/etc")
    kept, desk.options = desk.options, replace(desk.options, model_switch=False)
    try:
        with pytest.raises(UsageError, match="this server keeps its model"):
            models.use(SHIPPED)
        assert "This server keeps its model." in models.view() and "data-do" not in models.view()
    finally:
        desk.options = kept


def test_a_model_that_could_not_be_loaded_says_why(models: Models) -> None:
    models.failed = ("a/b", "<weights> are missing")
    assert "a/b could not be loaded: &lt;weights&gt; are missing" in models.view()


def test_downloads_are_shown_as_far_as_they_are(models: Models) -> None:
    models.downloads.known["a/b"] = Download("a/b", 2 * 10**9, percent=40, eta_s=30.0)
    models.downloads.known["c/d"] = Download("c/d", 5, state="failed", error="no room")
    view = models.view()
    assert "40 % of 2.0 GB, 30 s left" in view and "width:40%" in view
    assert "no room" in view and 'data-do="get" data-of="c/d"' in view


def test_offline_a_download_says_why_it_cannot_be(models: Models) -> None:
    with pytest.raises(ModelError, match="forbids to download it"):
        models.takes("black-forest-labs/FLUX.1-dev")
    assert models.takes(SHIPPED) == f"{SHIPPED} is here already."
