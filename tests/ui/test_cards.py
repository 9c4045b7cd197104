"""Cards and the large view: texts of a job are shown as they are and are never markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ui.markup import WICKED, shown, wicked
from ui import cards


def no_picture(job: object, index: int) -> None:
    return None


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
def test_a_card_shows_texts_as_they_are(status: str) -> None:
    job = wicked(status)
    assert shown(cards.card(job, no_picture)) >= 4  # under the picture, in its title and in the labels
    assert shown(cards.grid([job], no_picture, WICKED)) >= 4
    assert shown(cards.card(job, lambda job, index: Path(f"/small/{WICKED}.jpg"))) >= 4
    assert shown(cards.grid([], no_picture, WICKED)) == 1


def test_the_large_view_shows_texts_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / f"{WICKED.replace('/', '')}.png"
    path.write_bytes(b"x")
    job = wicked(path=str(path))
    job.artifacts *= 2
    assert shown(cards.large(job, 0, lambda job, index: path)) == 1  # the prompt: the address of the file is quoted
    assert shown(cards.large(wicked("failed"), 0, no_picture)) == 1
    assert shown(cards.player(cards.shown_of(job)[0], WICKED)) == 1
    assert shown(cards.player(cards.Shown(str(path), "video/mp4", ""), WICKED)) == 1


def test_edited_clips_are_numbered_in_their_order(tmp_path: Path) -> None:
    job = wicked()
    job.files = tuple(str(tmp_path / f"{job.id}_edit{i}.{kind}") for i, kind in ((1, "mp4"), (2, "gif")))
    assert [entry.name for entry in cards.shown_of(job)] == ["", "Edit 1", "Edit 2"]
    job.expired = True
    assert [entry.path for entry in cards.shown_of(job)] == [""]
