"""Requests with every documented parameter of the three endpoints, right and wrong, for test_differential.py."""

from __future__ import annotations

from tests.product import Json

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
ASKED: dict[str, Json] = {
    CHAT: {"messages": [{"role": "user", "content": "Count from one to ten."}], "max_tokens": 8},
    COMPLETIONS: {"prompt": "One, two, three,", "max_tokens": 8},
    RESPONSES: {"input": "Count from one to ten.", "max_output_tokens": 8},
}
GREEDY: Json = {"temperature": 0}
SEEDED: Json = {"temperature": 0.9, "seed": 7}
SCHEMA: Json = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
NAMED_SCHEMA: Json = {"name": "n", "schema": SCHEMA, "strict": True}
FUNCTION: Json = {"name": "add", "description": "Adds.", "parameters": SCHEMA}
TOOL: Json = {"type": "function", "function": FUNCTION}
IMAGE: Json = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TURNS: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
    {"role": "assistant", "content": "Hi.", "name": "helper"},
    {"role": "user", "content": "And now?", "name": "ann"},
]
CALL: Json = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
CALLED: list[Json] = [
    {"role": "user", "content": "Add one."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "2"},
]  # fmt: skip
SAMPLING: list[Json] = [
    GREEDY,
    SEEDED,
    SEEDED | {"top_p": 0.5},
    GREEDY | {"stop": "four"},
    GREEDY | {"stop": [",", "2"]},
    GREEDY | {"frequency_penalty": 1.5},
    GREEDY | {"presence_penalty": -1.5},
    GREEDY | {"logit_bias": {"260": 50}},
    GREEDY | {"user": "ann", "metadata": {"a": "b"}},
    SEEDED | {"top_k": 3},
    SEEDED | {"min_p": 0.2},
    GREEDY | {"repetition_penalty": 1.3},
    GREEDY | {"ignore_eos": True},
    GREEDY | {"safety_identifier": "a", "prompt_cache_key": "b", "service_tier": "auto", "store": False},
    GREEDY | {"unheard_of": {"deep": [1.5, None]}},
]
MANY: list[Json] = [SEEDED | {"n": 2}, GREEDY | {"min_tokens": 4}]
WRONG: list[Json] = [
    {"temperature": -1},
    {"temperature": "warm"},
    {"top_p": 2},
    {"seed": "x"},
    {"stop": {"a": 1}},
    {"frequency_penalty": 9},
    {"presence_penalty": "x"},
    {"logit_bias": {"x": 1}},
    {"logit_bias": {"999999999": 1}},
    {"user": 5},
]
CASES: dict[str, list[Json]] = {
    CHAT: [
        *SAMPLING,
        *MANY,
        GREEDY | {"messages": TURNS},
        GREEDY | {"messages": CALLED},
        GREEDY | {"max_completion_tokens": 4},
        GREEDY | {"logprobs": True},
        GREEDY | {"logprobs": True, "top_logprobs": 2},
        GREEDY | {"response_format": {"type": "text"}},
        GREEDY | {"response_format": {"type": "json_object"}},
        GREEDY | {"response_format": {"type": "json_schema", "json_schema": NAMED_SCHEMA}},
        GREEDY | {"tools": [TOOL]},
        GREEDY | {"tools": [TOOL], "tool_choice": "auto"},
        GREEDY | {"tools": [TOOL], "tool_choice": "none"},
        GREEDY | {"tools": [TOOL], "tool_choice": "required", "max_tokens": 24},
        GREEDY | {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}}, "max_tokens": 24},
        GREEDY | {"tools": [TOOL], "parallel_tool_calls": False},
        GREEDY | {"reasoning_effort": "low", "verbosity": "low", "modalities": ["text"]},
        GREEDY | {"prediction": {"type": "content", "content": "One"}},
        GREEDY | {"echo": True, "add_generation_prompt": False, "continue_final_message": True},
        *WRONG,
        {"max_tokens": 0},
        {"max_completion_tokens": -1},
        {"n": 0},
        {"n": "x"},
        {"logprobs": "x"},
        {"top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 1000},
        {"response_format": {"type": "yaml"}},
        {"response_format": {"type": "json_schema"}},
        {"tools": [{"type": "function"}]},
        {"tools": "x"},
        {"tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "subtract"}}},
        GREEDY | {"stream_options": {"include_usage": True}},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        {"messages": [{"role": "user", "content": "one " * 5000}]},
    ],
    COMPLETIONS: [
        *SAMPLING,
        *MANY,
        GREEDY | {"prompt": ["One, two,", "Red, green,"]},
        GREEDY | {"prompt": [1, 2, 3]},
        GREEDY | {"prompt": [[1, 2, 3], [4, 5]]},
        GREEDY | {"echo": True},
        GREEDY | {"echo": True, "max_tokens": 0, "logprobs": 1},
        GREEDY | {"logprobs": 2},
        GREEDY | {"suffix": "ten."},
        SEEDED | {"best_of": 2},
        GREEDY | {"prompt_logprobs": 1},
        GREEDY | {"response_format": {"type": "json_object"}},
        *WRONG,
        {"prompt": None},
        {"prompt": {"a": 1}},
        {"prompt": []},
        {"prompt": "one " * 5000},
        {"max_tokens": -1},
        {"n": 0},
        {"logprobs": -2},
        {"echo": "x"},
        GREEDY | {"stream_options": {"include_usage": True}},
    ],
    RESPONSES: [
        *SAMPLING,
        GREEDY | {"instructions": "Be brief.", "truncation": "disabled"},
        GREEDY | {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello."}]}]},
        GREEDY | {"input": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hello."}]},
        GREEDY | {"input": [{"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
                            {"type": "function_call_output", "call_id": "c", "output": "2"}]},
        GREEDY | {"max_output_tokens": 16},
        GREEDY | {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        GREEDY | {"text": {"format": {"type": "json_object"}}},
        GREEDY | {"text": {"format": {"type": "json_schema", **NAMED_SCHEMA}}},
        GREEDY | {"tools": [{"type": "function", **FUNCTION}]},
        GREEDY | {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "required", "max_output_tokens": 24},
        GREEDY | {"parallel_tool_calls": False, "max_tool_calls": 1, "store": True, "background": False},
        GREEDY | {"reasoning": {"effort": "low"}, "previous_response_id": None},
        *WRONG,
        {"max_output_tokens": "x"},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"text": {"format": {"type": "yaml"}}},
        {"prompt": {"id": "p"}},
        {"truncation": "middle"},
        {"instructions": 5},
        {"input": [{"type": "telepathy"}]},
        {"input": "one " * 5000},
    ],
}  # fmt: skip
STREAM_OPTIONS: list[Json] = [
    {},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {"include_usage": False}},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"stream_options": {"continuous_usage_stats": True}},
    {"stream_options": {}},
    {"stream_options": "x"},
    {"stream_options": {"include_usage": "x"}},
]
