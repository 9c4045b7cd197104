"""Jobs belong to processes that never see torch."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "diffusers", "transformers", "gradio", "fastapi", "boto3")


def test_a_process_with_a_queue_loads_nothing_heavy() -> None:
    code = (
        "import sys; from engine import env; from engine.config import EngineConfig; from engine.jobs import *; "
        "from engine.jobs.supervisor import Supervisor; from engine.jobs import served; import engine.cloud; "
        "assert served.described(EngineConfig(), env.read()) is not None; "
        f"print(*sys.modules.keys() & {set(HEAVY)!r})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []
