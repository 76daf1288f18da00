"""Saved stacks over HTTP. Every answer is JSON; an error says what came, what can be and what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace

from aiohttp import web
from server import PromptServer

from ...wan.errors import UserError
from ...wan.lora.example_stacks import EXAMPLES
from ...wan.lora.recipe_store import (
    NoSuchRecipeError,
    RecipeExistsError,
    checked_name,
    summary,
)
from ...wan.lora.recipes import (
    Recipe,
    read_recipe,
    recipe_document,
    recipe_text,
)
from .recipes import completed_here, known_recipe, recipe_store

Handler = Callable[[web.Request], Awaitable[web.Response]]
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def register_recipe_routes() -> None:
    """Adds the routes to the host's server, where there is one."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    routes = server.routes
    routes.get("/tandem/stacks")(_answering(_list))
    routes.post("/tandem/stacks/import")(_answering(_import))
    routes.get("/tandem/stacks/{name}")(_answering(_get))
    routes.put("/tandem/stacks/{name}")(_answering(_put))
    routes.delete("/tandem/stacks/{name}")(_answering(_delete))
    routes.post("/tandem/stacks/{name}/rename")(_answering(_rename))


async def _list(request: web.Request) -> web.Response:
    """The examples and the saved stacks, without their rows."""
    del request
    saved = await asyncio.to_thread(recipe_store().list)
    examples = [summary(recipe, example=True) for recipe in EXAMPLES.values()]
    return web.json_response({"stacks": [asdict(line) for line in [*examples, *saved]]})


async def _get(request: web.Request) -> web.Response:
    """The recipe, to show, to export or to paste; with ?download=true the browser saves it as a file."""
    recipe = await asyncio.to_thread(known_recipe, request.match_info["name"])
    headers = {}
    if _flag(request, "download"):
        name = recipe.name.replace(": ", " ").encode("ascii", "replace").decode().replace("?", "_")
        headers["Content-Disposition"] = f'attachment; filename="{name}.json"'
    return web.Response(text=recipe_text(recipe), content_type="application/json", headers=headers)


async def _put(request: web.Request) -> web.Response:
    """Saves the body, a recipe or a list of rows, under the name; files that are here are hashed."""
    name, overwrite = checked_name(request.match_info["name"]), _flag(request, "overwrite")
    recipe = replace(await _body_recipe(request), name=name)
    return await asyncio.to_thread(_save, recipe, overwrite, complete=True)


async def _import(request: web.Request) -> web.Response:
    """Keeps a recipe from elsewhere as it is, under its own name or ?name=."""
    recipe, overwrite = await _body_recipe(request), _flag(request, "overwrite")
    name = checked_name(request.query.get("name", recipe.name))
    return await asyncio.to_thread(_save, replace(recipe, name=name), overwrite, complete=False)


def _save(recipe: Recipe, overwrite: bool, *, complete: bool) -> web.Response:
    store = recipe_store()
    existed = store.path(recipe.name).exists()
    store.save(completed_here(recipe) if complete else recipe, overwrite=overwrite)
    document = recipe_document(store.read(recipe.name))
    return web.json_response(document, status=200 if existed else 201)


async def _rename(request: web.Request) -> web.Response:
    values = await _json_body(request)
    if not isinstance(values, dict) or set(values) != {"to"}:
        raise UserError(
            f"The body is {json.dumps(values):.120}.",
            'A rename has the body {"to": "new name"}.',
            "Send the new name.",
        )
    old, new = request.match_info["name"], checked_name(values["to"])
    path = await asyncio.to_thread(recipe_store().rename, old, new)
    return web.json_response({"name": path.stem, "was": old})


async def _delete(request: web.Request) -> web.Response:
    """Moves the stack to `.deleted`; the answer says under which name it lies there."""
    name = request.match_info["name"]
    kept = await asyncio.to_thread(recipe_store().delete, name)
    return web.json_response({"deleted": name, "kept": f"{kept.parent.name}/{kept.name}"})


async def _body_recipe(request: web.Request) -> Recipe:
    return read_recipe(await _body_text(request), "The body")


async def _json_body(request: web.Request) -> object:
    text = await _body_text(request)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"The body is not JSON ({error}).", "It is one JSON object.", "Mend the body."
        ) from error


async def _body_text(request: web.Request) -> str:
    body = await request.read()
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"The body is not UTF-8 ({error}).", "It is JSON in UTF-8.", "Encode it so."
        ) from error


def _flag(request: web.Request, key: str) -> bool:
    value = request.query.get(key, "false").lower()
    if value not in _FLAGS:
        raise UserError(f"{key} is {value!r:.40}.", "It is true or false.", "Choose one of them.")
    return _FLAGS[value]


def _answering(handle: Handler) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        try:
            return await handle(request)
        except NoSuchRecipeError as error:
            return _refusal(404, error)
        except RecipeExistsError as error:
            return _refusal(409, error)
        except UserError as error:
            return _refusal(400, error)

    return handler


def _refusal(status: int, error: UserError) -> web.Response:
    parts = {"came": error.came, "can_be": error.can_be, "to_do": error.to_do}
    return web.json_response({"error": parts}, status=status)
