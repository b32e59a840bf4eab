"""What test_clients.py gives each script, from its environment, and how a script answers: one JSON object on stdout.

OPENAI_BASE_URL and OPENAI_API_KEY most clients read by themselves; the others are told.
"""

import json
import os
import sys
from typing import Any, Literal

from pydantic import BaseModel

URL = os.environ["OPENAI_BASE_URL"]
KEY = os.environ["OPENAI_API_KEY"]
BASE = os.environ["LIFT_BASE"]
DOCUMENT = os.environ["LIFT_DOCUMENT"]  # ready
UNKNOWN = os.environ["LIFT_UNKNOWN"]  # the id of no document
TEXT = os.environ["LIFT_TEXT"]  # the document's: uploaded again, with its recipe, it is ready at once
RECIPE = os.environ["LIFT_RECIPE"]
QUESTION = os.environ["LIFT_QUESTION"]
MAX_TOKENS = 16
TOOL_TOKENS = 64  # so many a call's or an object's JSON may take
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]


class Pet(BaseModel):
    """Closed choices: a small model ends."""

    kind: Literal["dog", "cat"]
    name: Literal["Brisket", "Biscuit"]


def say(**got: Any) -> None:
    json.dump(got, sys.stdout)
