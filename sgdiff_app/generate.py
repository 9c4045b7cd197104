"""`generate`: one run from settings to files, told to stdout (paths or JSON) and stderr (everything else)."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine import env, log
from engine.config import EngineConfig
from engine.env import Environment
from engine.errors import Cancelled, GenerationError, OutputError, SgdiffError, UsageError
from engine.faults import Faults
from engine.types import Request
from sgdiff_app import failures, files, naming, perf
from sgdiff_app.config import Settings
from sgdiff_app.interrupts import Interrupts
from sgdiff_app.naming import Naming
from sgdiff_app.options import CommandOptions, OutputOptions, PromptOptions
from sgdiff_app.progress import Bar, ClearFirst

if TYPE_CHECKING:
    from pathlib import Path

    from engine.catalog import ModelSpec
    from engine.cloud import Cloud
    from engine.engine import Engine
    from engine.hub import Source
    from engine.types import Artifact, Output

logger = log.get(__name__)
SHOWN = 80  # characters of a prompt that a log line repeats


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for: a request per prompt, as typed, and where its outputs go."""

    requests: tuple[Request, ...]
    output: OutputOptions
    naming: Naming


@dataclass(slots=True)
class Run:
    """A job at work: what it draws with, and what it has drawn so far."""

    job: Job
    settings: Settings
    environment: Environment
    config: EngineConfig
    bar: Bar
    interrupts: Interrupts
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    drawn: list[Output] = field(default_factory=list)
    compared: bool = False
    cloud: Cloud | None = None

    @property
    def as_json(self) -> bool:
        return self.settings.noun(CommandOptions).json


def prepare(settings: Settings) -> Job:
    """Turn settings into requests and file names. Raises UsageError; touches no file but that of the prompts."""
    output = settings.noun(OutputOptions)
    names = naming.plan(output)
    request = settings.noun(Request)
    if names.format is not None:
        request = request.replace(output_format=names.format)
    if settings.recipe is not None and settings.noun(EngineConfig).lora_path is None:
        from engine import recipe

        request = request.replace(loras=recipe.loras(settings.recipe))
    prompts = _prompts(settings.noun(PromptOptions))
    outputs = len(prompts) * request.num_outputs_per_prompt
    names.check_length(request.output_format or "png", outputs)
    if output.return_frames and not output.save_output:
        logger.warning("return_frames has no effect: save_output is false, so no file is written")
    return Job(tuple(request.replace(prompt=prompt) for prompt in prompts), output, names)


def _prompts(options: PromptOptions) -> Sequence[str]:
    if options.prompt_path is None:
        if not options.prompt:
            message = "--prompt: required; give it here, in a config file, with --prompt-path or with --from-file"
            raise UsageError(message, code="missing_parameter", param="prompt")
        return options.prompt
    try:
        text = files.place(options.prompt_path, "--prompt-path").read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"--prompt-path: {options.prompt_path}: cannot be read: {reason}") from error
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UsageError(f"--prompt-path: {options.prompt_path}: holds no prompt")
    return prompts


def check(
    job: Job, config: EngineConfig, environment: Environment, offline: bool = False
) -> tuple[Source, ModelSpec, list[Request]]:
    """Do everything that can be done without weights: find the model, resolve the requests, open their inputs.

    `offline` allows no download. Raises SgdiffError.
    """
    naming.require_writable(job.output, job.naming)
    Faults(environment)
    env.cloud()
    from engine import engine as engines  # torch may come in with the engine, after every check above

    engines.check_loras(config, environment, job.requests, download=not offline)
    source, spec = engines.spec_of(replace(config, offline=True) if offline else config, environment)
    job.naming.check(spec)
    return source, spec, engines.resolve_all(job.requests, spec, config)


def run(settings: Settings, environment: Environment) -> int:
    """Draw and write everything that is asked for; return the exit status. Raises SgdiffError before the first step."""
    job, config = prepare(settings), settings.noun(EngineConfig)
    with Interrupts() as interrupts:
        bar = Bar(color=not environment.no_color)
        run = Run(job, settings, environment, config, bar, interrupts)
        clear = ClearFirst(bar)
        handlers = logging.getLogger(log.ROOT).handlers
        for handler in handlers:
            handler.addFilter(clear)
        try:
            return _run(run)
        except (Cancelled, KeyboardInterrupt) as stop:
            bar.clear()
            logger.warning("cancelled")
            if run.as_json and not isinstance(stop, Cancelled):  # a prompt that was cancelled has told of itself
                failures.print_object(Cancelled("cancelled"))
            return interrupts.status or Cancelled.exit_status
        finally:
            bar.clear()
            for handler in handlers:
                handler.removeFilter(clear)


def _run(run: Run) -> int:
    source, _, requests = check(run.job, run.config, run.environment)
    from engine.engine import Engine

    failed = 0
    run.cloud = _cloud(run.job.output)
    with Engine(run.config, run.environment, source) as engine:
        for number, request in enumerate(requests):
            failed += not _prompt(run, engine, request, number, requests)
    if run.cloud is not None:
        run.cloud.close()
    if run.drawn and run.job.naming.timings is not None:
        _dump(run, run.job.naming.timings, engine)
    seconds = sum(output.timings.total_ms for output in run.drawn) / 1000
    logger.info("%d of %d outputs in %.1f s", len(run.drawn), _count(requests), seconds)
    return 1 if failed else 0


def _cloud(output: OutputOptions) -> Cloud | None:
    """Return where files are uploaded to, if the environment says so."""
    if not output.save_output or env.cloud() is None:
        return None
    from engine.cloud import Cloud

    return Cloud.from_environment()


def _uploaded(cloud: Cloud | None, artifact: Artifact) -> str | None:
    """Upload a file and return its URL; None when there is nothing but the file."""
    if cloud is None:
        return None
    from pathlib import Path

    try:
        return cloud.url(cloud.upload(Path(artifact.location), artifact.media_type))
    except OutputError as error:
        logger.warning("%s; the file stays here: %s", error.message, artifact.location)
        return None


def _count(requests: Iterable[Request]) -> int:
    return sum(request.num_outputs_per_prompt for request in requests)


def _prompt(run: Run, engine: Engine, request: Request, number: int, requests: Sequence[Request]) -> bool:
    """Draw one prompt and tell what came of it. Returns whether every output is there. Raises Cancelled."""
    from engine.runtime.control import Control
    from engine.types import Output

    several = f"[{number + 1}/{len(requests)}] " if len(requests) > 1 else ""
    logger.info('%sdrawing "%s"', several, shown(request.prompt or ""))
    run.bar.label = several
    control = run.interrupts.control = Control(run.bar)
    if run.interrupts.status is not None:
        control.cancel()
    first, done, error = _count(requests[:number]), list[dict[str, Any]](), None
    outputs: list[Output] = []
    try:
        for event in engine.events(request, control):
            if isinstance(event, Output):
                outputs.append(event)
                done.append(_deliver(run, event, first + event.index, _count(requests)))
    except SgdiffError as raised:
        error = raised
    except BrokenPipeError:
        raise
    except Exception as raised:  # one prompt failed, the engine stays usable for the others
        logger.debug("failed", exc_info=True)
        error = GenerationError(f"{type(raised).__name__}: {raised}")
    finally:
        run.interrupts.control = None
        run.bar.clear()
    run.drawn += outputs
    if run.as_json:
        print(json.dumps(_report(run, request, outputs, done, error), ensure_ascii=False), flush=True)
    if isinstance(error, Cancelled):
        raise error
    if error is not None:
        failures.complain(f"{several}{error.message}")
    return error is None


def shown(prompt: str) -> str:
    """Return a prompt as one line of a log."""
    line = " ".join(prompt.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."


def _deliver(run: Run, output: Output, index: int, count: int) -> dict[str, Any]:
    """Write one output and say where; the path goes to stdout as soon as the file is complete."""
    run.bar.clear()
    request, options = output.request, run.job.output
    _, height, width, _ = output.frames.shape
    path = url = None
    if options.save_output:
        place = run.job.naming.path(request.prompt or "", run.request_id, request.output_format or "png", index, count)
        artifact = output.save(str(place))
        path, url = artifact.location, _uploaded(run.cloud, artifact)
        if options.return_frames:
            perf.write(place.with_suffix(".npy"), output.frames)
        if not run.as_json:
            print(url or path, flush=True)
    logger.info(
        "%s (seed %d, %dx%d, %.1f s)",
        f"saved {path}" if path else "not saved",
        output.seed,
        width,
        height,
        output.timings.total_ms / 1000,
    )
    _compare(run, output)
    told = {"path": path, "seed": output.seed, "width": width, "height": height, "frames": len(output.frames)}
    return told if url is None else {**told, "url": url}


def _compare(run: Run, output: Output) -> None:
    """Say once what differs from the recipe that is replayed."""
    if run.settings.recipe is None or run.compared:
        return
    run.compared = True
    from engine import recipe

    for text in recipe.differences(run.settings.recipe, output.recipe):
        logger.warning("differs from the replayed file: %s", text)


def _report(
    run: Run, request: Request, outputs: Sequence[Output], done: Sequence[Mapping[str, Any]], error: SgdiffError | None
) -> dict[str, Any]:
    report: dict[str, Any] = {"status": "failed" if error else "completed"}
    if error is not None:
        report["error"] = {"code": error.code, "message": error.message}
    report |= {
        "model": run.config.model_path,
        "prompt": request.prompt,
        "outputs": list(done),
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
    }
    if outputs:
        report["timings_ms"] = {"total": round(sum(output.timings.total_ms for output in outputs), 1)}
        report["peak_memory_mb"] = round(max(output.timings.peak_memory_mb for output in outputs), 1)
    return report


def _dump(run: Run, path: Path, engine: Engine) -> None:
    content = perf.content(run.drawn, run.request_id, run.environment, run.config.model_path, engine.device)
    perf.write(path, content)
    logger.info("timings: %s", path)
