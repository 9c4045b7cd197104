"""`--dry-run`: everything is checked, the model is looked up, and what would happen is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator

from engine import hub, log
from engine.catalog import ModelSpec
from engine.config import EngineConfig
from engine.downloads import size
from engine.env import Environment
from engine.hub import Plan
from sgdiff_app.config import Settings


def run(settings: Settings, environment: Environment, as_json: bool) -> int:
    """Print the plan of a command and return 0. Raises SgdiffError for what would fail; downloads nothing."""
    config = settings.noun(EngineConfig)
    if settings.command in ("serve", "desktop"):
        from sgdiff_app import serve

        serve.check(settings)
    found = hub.plan(config, environment)
    if settings.command == "generate":
        _check(settings, environment, config, found)
    if as_json:
        print(json.dumps(_plain(found), ensure_ascii=False))
    else:
        print("\n".join(_lines(found, config)))
    return 0


def _check(settings: Settings, environment: Environment, config: EngineConfig, found: Plan) -> None:
    """Refuse what `generate` refuses; of a model that has to be downloaded the catalog alone is known."""
    log.quiet_libraries()
    from engine import engine, pipeline
    from engine.attention.select import select
    from sgdiff_app import generate, naming

    job = generate.prepare(settings)
    spec: ModelSpec | None
    if found.cached:
        _, spec, _ = generate.check(job, config, environment, offline=True)
    else:
        naming.require_writable(job.output, job.naming)
        spec = _described(found, config)
        if spec is not None:
            job.naming.check(spec)
            engine.resolve_all(job.requests, spec, config)
    device = pipeline.pick_device(config.device)
    if spec is not None and spec.family != "passthrough":
        select(config.attention_backend, device)


def _described(found: Plan, config: EngineConfig) -> ModelSpec | None:
    """Return what the catalog knows of a model, as the backend that is asked for would run it."""
    if found.spec is None or config.backend != "diffusers":
        return found.spec
    from engine.models import passthrough

    return passthrough.spec(found.spec.id, config.pipeline_class_name or found.spec.pipeline, found.spec)


def _plain(found: Plan) -> dict[str, object]:
    return {
        "model": found.name,
        "catalog_id": found.spec.id if found.spec else None,
        "cached": found.cached,
        "folder": str(found.folder) if found.folder else None,
        "download_bytes": found.download_bytes,
    }


def _lines(found: Plan, config: EngineConfig) -> Iterator[str]:
    yield f"model: {found.name}" + (f" ({found.spec.id}, {found.spec.family})" if found.spec else "")
    yield f"folder: {found.folder or 'not on this machine'}"
    yield f"download: {size(found.download_bytes)}"
    yield f"device: {config.device}, executor: {config.executor}"
