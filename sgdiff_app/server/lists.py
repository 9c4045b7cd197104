"""Lists with a cursor: what a client may ask of them, and a page of jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request as HttpRequest

from engine.errors import listed, shown
from engine.jobs import Job
from sgdiff_app.server.errors import invalid
from sgdiff_app.server.service import Service

DEFAULT, MOST = 20, 100
ORDERS = ("desc", "asc")


async def page(
    service: Service, http: HttpRequest, show: Callable[[Service, Job], dict[str, Any]], **wanted: Any
) -> dict[str, Any]:
    """Return the page of jobs that a query asks for with `after`, `limit` and `order`, each as `show` shows it.

    `wanted` are filters of `JobStore.page`. Raises ApiError and UsageError that name the wrong one.
    """
    query = http.query_params
    count = limit(query.get("limit"))
    order = query.get("order") or ORDERS[0]
    if order not in ORDERS:
        raise invalid("invalid_order", f"order: must be one of {listed(ORDERS)}, got '{shown(order)}'", "order")
    wanted |= {"after": query.get("after") or None, "limit": count, "descending": order == ORDERS[0]}

    def look() -> dict[str, Any]:
        jobs, more = service.queue.page(**wanted)
        data = [show(service, job) for job in jobs]
        first, last = (jobs[0].id, jobs[-1].id) if jobs else (None, None)
        return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}

    return await service.aside(look)


def limit(text: str | None) -> int:
    """Return how many entries a page has. Raises ApiError `invalid_limit`."""
    if not text:
        return DEFAULT
    number = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 0
    if not 1 <= number <= MOST:
        raise invalid("invalid_limit", f"limit: must be an integer from 1 to {MOST}, got '{shown(text)}'", "limit")
    return number
