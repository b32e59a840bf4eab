"""POST /v1/chat/completions: a question, to a document's adapter, to its text, or to the base model."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request, Response

from lift_server.answer import Answer
from lift_server.body import read_json
from lift_server.middleware import received_s, traceparent
from lift_server.owner import CurrentOwner
from lift_server.question import read_question
from lift_server.relay import AnswerStream, unless_gone
from lift_server.state import CurrentState

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat(request: Request, state: CurrentState, owner: CurrentOwner) -> Response:
    values = await read_json(request, state.settings.server.max_request_bytes)
    question = read_question(
        state.settings,
        values,
        owner=owner,
        in_header=request.headers.get("x-document-id"),
        received_s=received_s(request),
        traceparent=traceparent(request),
    )
    answer = Answer(state, question)
    if question.stream:
        return AnswerStream(answer)
    async with answer:
        body = await unless_gone(request.receive, answer.whole())
    return Response(json.dumps(body), headers=answer.server_timing(), media_type="application/json")
