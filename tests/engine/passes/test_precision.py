"""Each component gets the precision that was asked for, else the model's own."""

from __future__ import annotations

import pytest

from engine.catalog import MODELS
from engine.config import EngineConfig
from engine.errors import UsageError
from engine.passes import precision

NAMES = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae")
DEV = next(spec for spec in MODELS if spec.id.endswith("FLUX.1-dev"))


def test_the_models_own() -> None:
    assert set(precision.plan(NAMES, EngineConfig(), DEV).values()) == {"bf16"}


def test_components_without_weights_have_none() -> None:
    assert set(precision.plan(NAMES, EngineConfig(), DEV)) == {"text_encoder", "text_encoder_2", "transformer", "vae"}


def test_each_flag_reaches_its_components() -> None:
    config = EngineConfig(dit_precision="fp16", vae_precision="fp32", text_encoder_precisions=("fp32", "bf16"))
    plan = precision.plan(NAMES, config, DEV)
    assert plan == {"text_encoder": "fp32", "text_encoder_2": "bf16", "transformer": "fp16", "vae": "fp32"}


def test_the_image_encoder_has_a_flag_of_its_own() -> None:
    config = EngineConfig(image_encoder_precision="fp16", vae_precision="fp32", dit_precision="bf16")
    plan = precision.plan(("image_encoder", "transformer", "vae"), config, DEV)
    assert plan == {"image_encoder": "fp16", "transformer": "bf16", "vae": "fp32"}


def test_one_value_serves_all_text_encoders() -> None:
    plan = precision.plan(NAMES, EngineConfig(text_encoder_precisions=("fp32",)), DEV)
    assert plan["text_encoder"] == plan["text_encoder_2"] == "fp32"


def test_a_wrong_number_of_values() -> None:
    with pytest.raises(UsageError) as error:
        precision.plan(NAMES, EngineConfig(text_encoder_precisions=("fp32",) * 3), DEV)
    assert error.value.message == (
        "text_encoder_precisions: black-forest-labs/FLUX.1-dev has 2 text encoders "
        "(text_encoder, text_encoder_2), got 3 values"
    )


@pytest.mark.parametrize(
    ("planned", "flag", "casts"),
    [
        ({"unet": "bf16", "vae": "bf16"}, False, False),
        ({"unet": "bf16", "vae": "fp32"}, False, True),
        ({"unet": "bf16", "vae": "fp32"}, True, False),
    ],
)
def test_casts_are_for_components_that_differ(planned: dict[str, str], flag: bool, casts: bool) -> None:
    assert precision.autocast(planned, EngineConfig(disable_autocast=flag)) is casts
