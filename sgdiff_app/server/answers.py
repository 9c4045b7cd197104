"""What the answers of the server look like, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from engine.jobs.job import KINDS, STATUSES
from engine.types import ImageFormat, Quality, Task

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
MAP: Schema = {"type": "object"}
URL: Schema = {"type": "string", "format": "uri-reference"}


def nullable(schema: Schema) -> Schema:
    """Return a schema that takes null too."""
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


def one_of(*values: str) -> Schema:
    """Return the schema of a word out of some."""
    return {"type": "string", "enum": list(values)}


def whole(**properties: Schema) -> Schema:
    """Return the schema of an object that always has all of these keys, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def page_of(entry: str) -> Schema:
    """Return the schema of a page of a list."""
    return whole(
        object=one_of("list"),
        data=many(named(entry)),
        first_id=nullable(TEXT),
        last_id=nullable(TEXT),
        has_more=FLAG,
    )


def named(name: str) -> Schema:
    """Return a reference to one of ANSWERS."""
    return {"$ref": f"#/components/schemas/{name}"}


def deleted(word: str, **more: Schema) -> Schema:
    """Return the schema of what a DELETE answers."""
    return whole(id=TEXT, object=one_of(word), deleted={"type": "boolean", "enum": [True]}, **more)


TASK: Schema = one_of(*get_args(Task))
ERROR = whole(message=TEXT, type=TEXT, param=nullable(TEXT), code=TEXT)
FAILURE = nullable(whole(code=TEXT, message=TEXT))
MODEL = {
    "num_gpus": INTEGER,
    "task_type": nullable(TASK),
    "supported_task_types": many(TASK),
    "pipeline_name": nullable(TEXT),
    "pipeline_class": nullable(TEXT),
    "dit_precision": TEXT,
    "vae_precision": TEXT,
}
ADAPTER = whole(nickname=TEXT, path=nullable(TEXT))
ACTIVE = {
    "type": "object",
    "required": ["nickname", "merged", "strength"],
    "properties": {
        "nickname": TEXT,
        "path": nullable(TEXT),
        "merged": FLAG,
        "strength": NUMBER,
        "num_lora_layers_with_weights": INTEGER,
        "mode": one_of("merged", "unmerged"),
    },
    "additionalProperties": False,
}

ANSWERS: Mapping[str, Schema] = {
    "Error": whole(error=ERROR),
    "LoraError": whole(error=ERROR, detail=TEXT),
    "Alive": whole(status=one_of("ok")),
    "NotReady": {
        "type": "object",
        "required": ["status"],
        "properties": {"status": one_of("loading", "warming", "draining", "unhealthy"), "error": TEXT},
        "additionalProperties": False,
    },
    "Served": whole(model_path=TEXT, **MODEL, vae_decode_precision=TEXT, defaults=MAP),
    "ModelInfo": whole(
        model_path=TEXT,
        is_generation=FLAG,
        model_type=TEXT,
        architectures=many(TEXT),
        has_image_understanding=FLAG,
        has_audio_understanding=FLAG,
        task_type=nullable(TASK),
        supported_task_types=many(TASK),
        output_types=many(one_of("image", "video")),
        is_image_gen=FLAG,
    ),
    "ModelPath": whole(model_path=TEXT),
    "ServerInfo": whole(
        model_path=TEXT,
        served_model_name=TEXT,
        tp_size=INTEGER,
        dp_size=INTEGER,
        sp_degree=INTEGER,
        num_gpus=INTEGER,
        version=TEXT,
        lora_enabled=FLAG,
        instance_id=TEXT,
        uptime_s=NUMBER,
        queue=whole(waiting=INTEGER, running=INTEGER),
    ),
    "Card": whole(
        id=TEXT,
        object=one_of("model"),
        created=INTEGER,
        owned_by=TEXT,
        root=TEXT,
        parent=nullable(TEXT),
        max_model_len=nullable(INTEGER),
        **MODEL,
    ),
    "Cards": whole(object=one_of("list"), data=many(named("Card"))),
    "Loaded": whole(status=one_of("ok"), model=TEXT),
    "Usage": whole(
        input_tokens=INTEGER,
        output_tokens=INTEGER,
        total_tokens=INTEGER,
        input_tokens_details=whole(image_tokens=INTEGER, text_tokens=INTEGER),
    ),
    "Images": whole(
        id=TEXT,
        created=INTEGER,
        model=TEXT,
        data=many(
            whole(b64_json=nullable(TEXT), url=nullable(URL), revised_prompt=nullable(TEXT), seed=INTEGER),
        ),
        size=TEXT,
        output_format=one_of(*get_args(ImageFormat)),
        quality=one_of(*get_args(Quality)),
        background=TEXT,
        usage=named("Usage"),
        inference_time_s=NUMBER,
        queue_time_s=NUMBER,
        peak_memory_mb=NUMBER,
    ),
    "Video": whole(
        id=TEXT,
        object=one_of("video"),
        model=TEXT,
        status=one_of("queued", "in_progress", "completed", "failed"),
        progress=INTEGER,
        created_at=INTEGER,
        completed_at=nullable(INTEGER),
        expires_at=nullable(INTEGER),
        prompt=TEXT,
        size=TEXT,
        seconds=TEXT,
        quality=TEXT,
        remixed_from_video_id=nullable(TEXT),
        error=FAILURE,
        num_frames=nullable(INTEGER),
        fps=INTEGER,
        seed=nullable(INTEGER),
        num_outputs=INTEGER,
        queue_position=nullable(INTEGER),
        eta_s=nullable(NUMBER),
        url=nullable(URL),
        urls=nullable(many(URL)),
        inference_time_s=nullable(NUMBER),
        queue_time_s=nullable(NUMBER),
        peak_memory_mb=nullable(NUMBER),
        revised_prompt=nullable(TEXT),
    ),
    "Videos": page_of("Video"),
    "VideoDeleted": deleted("video.deleted", status=one_of("deleted")),
    "Job": whole(
        id=TEXT,
        object=one_of("job"),
        kind=one_of(*KINDS),
        model=TEXT,
        status=one_of(*STATUSES),
        priority=INTEGER,
        starred=FLAG,
        progress=whole(percent=INTEGER, stage=TEXT, step=INTEGER, steps=INTEGER, eta_s=nullable(NUMBER)),
        created_at=INTEGER,
        started_at=nullable(INTEGER),
        completed_at=nullable(INTEGER),
        expires_at=nullable(INTEGER),
        request=MAP,
        recipe=nullable(many(MAP)),
        artifacts=many(
            whole(
                index=INTEGER,
                url=nullable(URL),
                media_type=TEXT,
                width=INTEGER,
                height=INTEGER,
                frames=INTEGER,
                seed=INTEGER,
            )
        ),
        error=FAILURE,
    ),
    "Jobs": page_of("Job"),
    "JobDeleted": deleted("job.deleted"),
    "LoraDone": whole(status=one_of("ok"), message=TEXT, warnings=many(TEXT)),
    "Loras": whole(
        loaded_adapters=many(ADAPTER),
        active={"type": "object", "additionalProperties": many(ACTIVE)},
    ),
}
