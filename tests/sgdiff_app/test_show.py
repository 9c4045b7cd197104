"""`--print-config`: every setting with its value and its origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import catalog
from sgdiff_app import config, show
from sgdiff_app.settings import table

NAMES = (Path(__file__).parent / "data" / "flags.txt").read_text().split()


def shown(*words: str, command: str = "generate") -> dict[str, dict[str, Any]]:
    values = json.loads(show.as_json(config.load(words, command), catalog.by_name("tiny-scenes")))
    return dict(values)


def test_every_setting_is_shown_and_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGDIFF_FPS", "5")
    Path("c.yaml").write_text("height: 64")
    rows = shown("--num-gpus", "2", "--config", "c.yaml")
    assert rows["num_gpus"] == {"value": 2, "origin": "cli"}
    assert rows["height"] == {"value": 64, "origin": "file"}
    assert rows["fps"] == {"value": 5, "origin": "env"}
    assert rows["num_inference_steps"] == {"value": 20, "origin": "model"}
    assert rows["tp_size"] == {"value": 1, "origin": "default"}
    assert rows["vae_config.load_decoder"] == {"value": True, "origin": "default"}
    shown_names = {name.split(".")[0] for name in rows}
    assert set(table()) - shown_names == {"repeat", "warmup_runs"}


def test_what_serve_shows() -> None:
    rows = shown(command="serve")
    assert "port" in rows
    assert "output_path" in rows
    assert "seed" not in rows


def test_three_ways_of_one_setting_agree() -> None:
    Path("c.json").write_text('{"num-gpus": 2}')
    forms = [shown("--num_gpus=2"), shown("--num-gpus", "2"), shown("--config", "c.json")]
    values = [{name: row["value"] for name, row in rows.items() if name != "config"} for rows in forms]
    assert values[0] == values[1] == values[2]


def test_the_text_can_be_used_as_a_config_file() -> None:
    text = show.text(config.load(["--seed", "1", "2", "--vae-path", "x", "--720p"], "generate"), None)
    assert 'component_paths.vae: "x"  # cli' in text.splitlines()
    assert "seed: [1, 2]  # cli" in text.splitlines()
    assert 'size: "1280x720"  # cli' in text.splitlines()
    Path("c.yaml").write_text(text)
    assert shown("--config", "c.yaml")["seed"] == {"value": [1, 2], "origin": "file"}


def test_secrets_are_never_shown() -> None:
    text = show.text(config.load(["--api-key", "k1", "--webhook-secret", "k2"], "serve"), None)
    assert 'api_key: "***"  # cli' in text
    assert "k1" not in text
    assert "k2" not in text
