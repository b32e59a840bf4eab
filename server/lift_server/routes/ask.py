"""POST /v1/chat/completions, /v1/completions and /v1/responses: a question, to a document or to the base model."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request, Response

from lift_server.answer import Answer
from lift_server.attachments import attach, inline_bytes
from lift_server.body import read_sized_json
from lift_server.dialects import chat, completions, responses
from lift_server.dialects.dialect import Dialect
from lift_server.errors import ResponseNotFound, TooLarge
from lift_server.middleware import received_s, traceparent
from lift_server.owner import CurrentOwner
from lift_server.question import Question, read_question
from lift_server.relay import AnswerStream, unless_gone
from lift_server.sets import attach_set
from lift_server.state import CurrentState, State

router = APIRouter()


@router.post(chat.ROUTE)
async def ask_chat(request: Request, state: CurrentState, owner: CurrentOwner) -> Response:
    return await _answer(request, state, owner, chat)


@router.post(completions.ROUTE)
async def ask_completion(request: Request, state: CurrentState, owner: CurrentOwner) -> Response:
    return await _answer(request, state, owner, completions)


@router.post(responses.ROUTE)
async def ask_response(request: Request, state: CurrentState, owner: CurrentOwner) -> Response:
    return await _answer(request, state, owner, responses)


@router.get(responses.ROUTE + "/{response_id}")
@router.delete(responses.ROUTE + "/{response_id}")
@router.post(responses.ROUTE + "/{response_id}/cancel")
@router.get(responses.ROUTE + "/{response_id}/input_items")
async def no_response(response_id: str, owner: CurrentOwner) -> Response:
    """None is kept."""
    raise ResponseNotFound


async def _answer(request: Request, state: State, owner: str, dialect: Dialect) -> Response:
    question = await attach_set(state, await attach(state, await _read(request, state, owner, dialect)))
    answer = Answer(state, question)
    if question.stream:
        return AnswerStream(answer)
    async with answer:
        body = await unless_gone(request.receive, answer.whole())
    request.state.tokens = answer.tokens
    return Response(json.dumps(body), headers=answer.server_timing(), media_type="application/json")


async def _read(request: Request, state: State, owner: str, dialect: Dialect) -> Question:
    """A file's bytes in a question count as an upload's, and as no part of the question."""
    limits = state.settings.server
    most_bytes = limits.max_request_bytes + limits.max_upload_bytes * 4 // 3
    values, size_bytes = await read_sized_json(request, most_bytes)
    question = read_question(
        state.settings,
        dialect,
        values,
        owner=owner,
        in_header=request.headers.get("x-document-id"),
        received_s=received_s(request),
        traceparent=traceparent(request),
    )
    if size_bytes - inline_bytes(question) > limits.max_request_bytes:
        raise TooLarge("The request body", limits.max_request_bytes)
    return question
