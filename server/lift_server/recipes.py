"""Which recipes this server can serve. In: a name from a request. Out: the recipe, or a refusal naming its field."""

from __future__ import annotations

from lift_config.recipe import Recipe, load_recipes
from lift_config.settings import Settings
from lift_server.errors import InvalidRequest


def servable(settings: Settings, name: str, *, param: str) -> Recipe:
    """InvalidRequest where there is no such recipe, or its rank is above the engine's."""
    recipes = load_recipes()
    if name not in recipes:
        known = ", ".join(sorted(recipes))
        raise InvalidRequest(f"{param}: unknown recipe {name[:100]!r}; known: {known}.", param=param)
    rank, max_rank = recipes[name].rank, settings.max_lora_rank
    if rank > max_rank:
        message = f"{param}: {name!r} has rank {rank}, but this server's engine.max_lora_rank is {max_rank}."
        raise InvalidRequest(message, param=param)
    return recipes[name]


def all_servable(settings: Settings) -> dict[str, Recipe]:
    return {name: recipe for name, recipe in load_recipes().items() if recipe.rank <= settings.max_lora_rank}
