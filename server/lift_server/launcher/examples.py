"""What `lift-serve up` prints when ready: in: address and model; out: text to paste into a shell or Python."""

from __future__ import annotations

import json

TITLE = "Station log"
TEXT = (
    "The lighthouse at Varn Point was built in 1874 by Edda Holm. Its lamp burns rapeseed oil. "
    "The keeper's dog is called Brisket. Ships are warned by three long blasts of the horn."
)
QUESTION = "Who built the lighthouse at Varn Point?"

SHELL = """\
URL={address}/v1
ID=$(curl -sS $URL/documents -H 'Content-Type: application/json' -d @- <<'END' | grep -o 'doc_[0-9a-f]*' | head -1
{upload}
END
)
curl -sS $URL/documents/$ID   # "ready" once its adapter is trained; the question below waits for that
curl -sS $URL/chat/completions -H 'Content-Type: application/json' -d @- <<END
{{"model": {model}, "document_id": "$ID", "lift": {{"max_wait_s": 3600}},
 "temperature": 0, "messages": [{{"role": "user", "content": {question}}}]}}
END
"""

PYTHON = """\
import time
from openai import OpenAI
client = OpenAI(base_url="{address}/v1", api_key="none")
document = client.post("/documents", cast_to=object, body={upload})
while document["status"] in ("queued", "training"):
    time.sleep(1)
    document = client.get("/documents/" + document["id"], cast_to=object)
answer = client.chat.completions.create(
    model={model},
    messages=[{{"role": "user", "content": {question}}}],
    temperature=0,
    extra_body={{"document_id": document["id"]}},
)
print(answer.choices[0].message.content)
"""


def examples(address: str, model: str, seconds: float, ray: str = "") -> str:
    end = "Ctrl-C stops everything."
    if ray:
        end = f"Ctrl-C stops the server. Engines and workers go on until `lift-serve down --ray {ray}`."
    return (
        f"\nready after {seconds:.0f} s: {address}/v1 (model {model})\n"
        f"in a browser: {address}/\n\n"
        f"--- in a shell: upload, look, ask\n{shell_example(address, model)}\n"
        f"--- in Python (pip install openai)\n{python_example(address, model)}\n"
        "For other machines: lift-serve keys create NAME, and each request shows the key (README, API keys).\n"
        f"{end}"
    )


def shell_example(address: str, model: str) -> str:
    return SHELL.format(address=address, **_values(model))


def python_example(address: str, model: str) -> str:
    return PYTHON.format(address=address, **_values(model))


def _values(model: str) -> dict[str, str]:
    """JSON is Python too here: only strings."""
    return {
        "model": json.dumps(model),
        "upload": json.dumps({"title": TITLE, "text": TEXT}),
        "question": json.dumps(QUESTION),
    }
