"""Delays and failures that tests ask for through the environment; off otherwise."""

from __future__ import annotations

import time

from engine.env import Environment
from engine.errors import OutOfMemory, UsageError

MARK = "FAULT"


class Faults:
    """`kind@K` strikes after denoising step K of a run whose prompt contains FAULT; other texts raise UsageError."""

    def __init__(self, environment: Environment) -> None:
        self.delay_s = environment.test_step_delay_ms / 1000
        self.kind, _, step = (environment.test_fault or "").partition("@")
        if environment.test_fault and (self.kind not in ("error", "oom", "exit") or not step.isdigit()):
            raise UsageError(f"SGDIFF_TEST_FAULT: must be error@K, oom@K or exit@K, got '{environment.test_fault}'")
        self.step = int(step or 0)

    def strike(self, prompt: str, step: int) -> None:
        """Pause after every step, and fail at the chosen one."""
        if self.delay_s:
            time.sleep(self.delay_s)
        if not self.kind or step != self.step or MARK not in prompt:
            return
        if self.kind == "oom":
            raise OutOfMemory("a test asked for this memory error")
        if self.kind == "exit":
            raise SystemExit(70)
        raise RuntimeError("a test asked for this error")
