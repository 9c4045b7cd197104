"""Lists: how long a page is. Their cursors are tested where videos and jobs are listed."""

from __future__ import annotations

import pytest

from sgdiff_app.server import lists
from sgdiff_app.server.errors import ApiError


@pytest.mark.parametrize(("text", "count"), [(None, 20), ("", 20), ("1", 1), ("100", 100)])
def test_how_many_entries_a_page_has(text: str | None, count: int) -> None:
    assert lists.limit(text) == count


@pytest.mark.parametrize("text", ["0", "101", "-1", "1.5", "ten", "²", "9" * 5000])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(ApiError, match=r"^limit: must be an integer from 1 to 100, got '") as caught:
        lists.limit(text)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_limit", "limit")
    assert len(caught.value.message) < 200
