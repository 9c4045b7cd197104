"""Parts of tiny models: the tokenizers read what the pipelines write."""

from __future__ import annotations

from engine.models.tiny.parts import LLAMA_MARKS, QWEN_MARKS, qwen_tokenizer


def test_a_prompt_template_leaves_room_for_the_prompt() -> None:
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

    tokenizer = qwen_tokenizer((*QWEN_MARKS, *LLAMA_MARKS))
    template, start = DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"]
    first, second = (tokenizer(template.format(prompt))["input_ids"] for prompt in ("a red cat", "a house"))
    assert start < len(first) < start + 40
    assert first[start:] != second[start:]


def test_a_chat_is_written_with_marks_of_one_token() -> None:
    tokenizer = qwen_tokenizer()
    messages = [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert text == "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
