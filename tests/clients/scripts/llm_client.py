"""llm, the command: a model of extra-openai-models.yaml a document, by model name and by header; schema, unknown."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from given import BASE, DOCUMENT, KEY, MAX_TOKENS, QUESTION, TOOL_TOKENS, UNKNOWN, URL, Pet, say

MODELS = f"""
- {{model_id: base, model_name: "{BASE}", api_base: "{URL}"}}
- {{model_id: varn, model_name: "{BASE}:{DOCUMENT}", api_base: "{URL}", supports_schema: true}}
- {{model_id: varn-header, model_name: "{BASE}", api_base: "{URL}", headers: {{X-Document-Id: "{DOCUMENT}"}}}}
- {{model_id: unknown, model_name: "{BASE}:{UNKNOWN}", api_base: "{URL}"}}
"""
COMMAND = str(Path(sys.executable).with_name("llm"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "extra-openai-models.yaml").write_text(MODELS)
        ways = {"model": "varn", "header": "varn-header", "base": "base"}
        unknown = llm(folder, "unknown", QUESTION)
        say(
            answers={way: llm(folder, model, "--no-stream", QUESTION).stdout.strip() for way, model in ways.items()},
            streamed={way: llm(folder, model, QUESTION).stdout.strip() for way, model in ways.items()},
            parsed=parsed(folder),
            unknown=[unknown.returncode, unknown.stderr.strip()],
        )


def llm(folder: str, model: str, *arguments: str, tokens: int = MAX_TOKENS) -> subprocess.CompletedProcess[str]:
    options = ("-m", model, "--key", KEY, "-o", "temperature", "0", "-o", "max_tokens", str(tokens))
    environment = {**os.environ, "LLM_USER_PATH": folder}
    return subprocess.run(
        [COMMAND, "prompt", *options, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def parsed(folder: str) -> dict[str, str]:
    schema = json.dumps(Pet.model_json_schema())
    done = llm(folder, "varn", "--no-stream", "--schema", schema, QUESTION, tokens=TOOL_TOKENS)
    found: dict[str, str] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
