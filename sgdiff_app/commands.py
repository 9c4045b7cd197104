"""From a command's words to its work: settings read and checked, logging set up, then show, plan or run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engine import env, log
from engine.errors import NotAvailable, SgdiffError
from sgdiff_app import config, flags
from sgdiff_app.config import Settings
from sgdiff_app.options import CommandOptions, LogOptions

if TYPE_CHECKING:
    from engine.catalog import ModelSpec
    from engine.env import Environment

logger = log.get(__name__)


def run(command: str, argv: Sequence[str]) -> int:
    """Run a command and return the exit status. Raises SgdiffError."""
    argv, words = verb(argv) if command in ("models", "lora") else (argv, ())
    settings = config.load(argv, command)
    options, logging = settings.noun(CommandOptions), settings.noun(LogOptions)
    terminal = sys.stderr.isatty() or command not in ("serve", "desktop")
    log.setup(logging.log_level, logging.log_format or ("text" if terminal else "json"))
    for level, text in settings.notices:
        logger.log(level, text)
    if command == "doctor":
        from sgdiff_app import doctor

        return int(doctor.main(options))
    environment = env.read()
    if command == "models":
        from sgdiff_app import models

        return models.run(words, settings, environment)
    if command == "lora":
        from sgdiff_app import lora

        return lora.run(words, settings, environment)
    if environment.test_step_delay_ms or environment.test_fault:
        logger.warning("SGDIFF_TEST_STEP_DELAY_MS or SGDIFF_TEST_FAULT is set: delays and failures are wanted")
    if options.print_config:
        return _print_config(settings, environment, options.json)
    settings.require_available()
    try:
        return _work(settings, environment, options)
    except SgdiffError as error:
        settings.explain(error)
        raise


def verb(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Split the words of a command into flags with their values, and the words that stand for themselves."""
    rest, words = list[str](), list[str]()
    for word in argv:
        taken = bool(rest) and flags.needs_value(rest[-1])
        (rest if word.startswith("-") or taken else words).append(word)
    return rest, tuple(words)


def _work(settings: Settings, environment: Environment, options: CommandOptions) -> int:
    if options.dry_run:
        from sgdiff_app import plan

        return plan.run(settings, environment, options.json)
    if settings.command == "generate":
        from sgdiff_app import generate

        return generate.run(settings, environment)
    if settings.command in ("serve", "desktop"):
        from sgdiff_app import desktop, serve

        run = desktop.run if desktop.is_window(settings) else serve.run
        return run(settings, environment)
    raise NotAvailable(f"{settings.command}: not available yet")


def _print_config(settings: Settings, environment: Environment, as_json: bool) -> int:
    from sgdiff_app import show

    spec = _known_model(settings, environment)
    print(show.as_json(settings, spec) if as_json else show.text(settings, spec))
    return 0


def _known_model(settings: Settings, environment: Environment) -> ModelSpec | None:
    """Return what is known of the model without the network: from its folder if it is here, else by its name."""
    from engine import catalog, hub
    from engine.config import EngineConfig

    wanted = settings.noun(EngineConfig)
    try:
        return hub.plan(replace(wanted, offline=True), environment).spec
    except SgdiffError:
        return catalog.by_name(wanted.model_id or wanted.model_path)
