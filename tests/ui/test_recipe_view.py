"""The recipe as a table: texts of a recipe are shown as they are and are never markup."""

from __future__ import annotations

from engine import schema
from tests.ui.markup import WICKED, shown, wicked
from ui import recipe_view


def test_a_recipe_shows_texts_as_they_are() -> None:
    job = wicked()
    engine = dict.fromkeys(("model", "revision", "attention_backend", "device"), WICKED)
    engine |= {"precisions": {WICKED: WICKED}, "versions": {WICKED: WICKED}}  # type: ignore[dict-item]
    engine |= {"loras": [{"path": f"/x/{WICKED}.safetensors", "scale": 1.0}]}  # type: ignore[dict-item]
    inputs = {"image_path": [WICKED]}
    job.recipes = [{"request": schema.plain(job.request), "engine": engine, "inputs": inputs}]
    markup = recipe_view.view(job)
    assert shown(markup.partition("<details")[0]) == 10  # prompts, model, revision, backend, device, kinds, versions
    assert shown(markup) >= 10
    assert "&lt;img src=x onerror=alert(1)&gt;" in markup.partition("<pre>")[2]


def test_what_came_to_nothing_shows_what_it_asked_for() -> None:
    assert shown(recipe_view.view(wicked("failed")).partition("<details")[0]) == 4  # prompts, model, adapter


def test_the_values_of_a_table_are_text() -> None:
    assert shown(recipe_view.table([(WICKED, WICKED)])) == 2
