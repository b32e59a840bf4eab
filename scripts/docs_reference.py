"""The reference chapters of docs/, made of the code each time they are built (docs/conf.py).

In: the settings' classes, recipes, metrics, errors, the OpenAPI document, the command's parser. Out: Markdown by name.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import docs_errors
from lift_config.prompts import PROMPT_VERSION, document_line
from lift_config.recipe import Recipe, load_recipes
from lift_config.settings import Settings, SloSettings
from lift_server.app import create_app
from lift_server.arguments import parser
from lift_server.metrics import Metrics

Json = dict[str, Any]
NO_REDIS = Settings.model_construct(redis_url="redis://nowhere")  # the document is asked for, nothing is started


def settings() -> str:
    return _table(("setting", "default", "meaning"), _settings(Settings))


def recipes() -> str:
    names = [name for name in Recipe.model_fields if name not in ("name", "seed")]
    found = sorted(load_recipes().values(), key=lambda recipe: (recipe.rank, recipe.effort))
    values = [[f"`{name}`", *(_value(getattr(recipe, name)) for recipe in found)] for name in names]
    meanings = [(f"`{name}`", Recipe.model_fields[name].description or "") for name in names]
    meant = _table(("value", "meaning"), [row for row in meanings if row[1]])
    return _table(("", *(f"`{recipe.name}`" for recipe in found)), values) + "\n\n" + meant


def metrics() -> str:
    shown = [metric for metric in vars(Metrics(SloSettings())).values() if isinstance(metric, MetricWrapperBase)]
    return _table(("metric", "kind", "labels", "meaning"), map(_metric, shown))


def errors() -> str:
    rows = [(str(row.status), f"`{row.code}`", row.message) for row in docs_errors.answers()]
    return _table(("status", "code", "the message, or when"), rows)


def failures() -> str:
    return _table(("code", "message"), [(f"`{code}`", message) for code, message in docs_errors.failures()])


def routes() -> str:
    document = create_app(NO_REDIS).openapi()
    parts = []
    for tag in document["tags"]:
        rows = [row for row, tags in _operations(document) if tag["name"] in tags]
        parts.append(f"## {tag['name']}\n\n{tag['description']}\n\n{_table(('route', 'what', 'statuses'), rows)}")
    return "\n\n".join(parts)


def fields() -> str:
    """Of an upload and of `lift`, which are ours; the rest of a question is OpenAI's and vLLM's."""
    shapes = create_app(NO_REDIS).openapi()["components"]["schemas"]
    parts = (("An upload", "TextUpload"), ("`lift` in a question", "LiftOptions"), ("`lift` in an answer", "Lift"))
    return "\n\n".join(f"## {title}\n\n{_fields(shapes[name])}" for title, name in parts)


def commands() -> str:
    os.environ["COLUMNS"] = "100"  # argparse asks for the terminal's width
    (actions,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in actions._choices_actions}
    parts = [f"```text\n{parser().format_help()}```"]
    for name, command in actions.choices.items():
        nested = [one for one in command._actions if isinstance(one, argparse._SubParsersAction)]
        all_of_it = [command, *(below for one in nested for below in one.choices.values())]
        shown = [f"```text\n{one.format_help()}```" for one in all_of_it if command.add_help]
        parts.append("\n\n".join([f"## {name}", helps[name], *shown]))
    return "\n\n".join(parts)


def framing() -> str:
    """The system line, word for word."""
    lines = "\n".join(document_line(title) for title in ("TITLE", None))
    which = "The first where the document has a title, the second where it has none."
    return f"```text\n{lines}\n```\n\n{which} Prompt version {PROMPT_VERSION}."


CHAPTERS: dict[str, Callable[[], str]] = {
    chapter.__name__: chapter
    for chapter in (settings, recipes, metrics, errors, failures, routes, fields, commands, framing)
}


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        default = field.get_default()
        if isinstance(default, BaseModel):
            yield from _settings(type(default), f"{prefix}{name}.")
            continue
        assert field.description, f"{prefix}{name} has no description"
        yield f"`{prefix}{name}`", f"`{_default(default)}`", _meaning(field)


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f"{field.description}" + (f" ({', '.join(f'`{one}`' for one in choices)})" if choices else "")


def _default(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value) or '""'


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _metric(metric: MetricWrapperBase) -> tuple[str, ...]:
    """prometheus-client tells labels only of series that are there already, hence its underscore."""
    (family,) = metric.describe()
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"`{family.name}{'_total' * (family.type == 'counter')}`", family.type, labels, family.documentation


def _operations(document: Json) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses = ", ".join(sorted(operation["responses"]))
            yield (f"`{method.upper()} {path}`", operation["summary"], statuses), operation["tags"]


def _fields(shape: Json) -> str:
    required = shape.get("required", ())
    rows = [
        (f"`{name}`", _type(field), "yes" if name in required else "", field.get("description", ""))
        for name, field in shape["properties"].items()
    ]
    return _table(("field", "type", "needed", "meaning"), rows)


def _type(field: Json) -> str:
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    return str(field.get("type") or field.get("$ref", "").rpartition("/")[2])


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").replace("<", r"\<").split())
