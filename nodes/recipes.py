"""The nodes that save a stack, load it again, and read it back from a video."""

from __future__ import annotations

import asyncio

from comfy_api.latest import io

from ..wan.errors import UserError
from ..wan.lora.recipe_store import checked_name
from ..wan.lora.recipes import Recipe, recipe_text, row_files
from ..wan.lora.resolution import Resolution
from ..wan.lora.stack import LoraStack
from . import sockets
from .host import loras
from .host.media_files import media_names, media_path
from .host.progress import node_text
from .host.recipes import (
    known_names,
    loaded,
    path_here,
    read_video_recipe,
    recipe_given,
    recipe_here,
    recipe_store,
)

EXAMPLE = "example: fast anime"
FILES_TIP = (
    "Lines NAME = FILE: which LoRA of this computer to take for a role of an example, or for a file that is not here. "
    "For example: style = anime_style.safetensors"
)
CHANGED_TIP = (
    "If a file has the right name but another content than when the stack was saved, for example after training anew: "
    "take it and say so (warn), or stop (error)."
)


class TandemSaveStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemSaveStack",
            display_name="Tandem Save Stack",
            category="Tandem/lora",
            description="Saves a stack under a name, as JSON with each file's SHA-256, trigger words and source, so "
            "that it can be loaded again, documented and shared. The first time, each file is read once to hash it.",
            search_aliases=["save lora stack", "lora preset", "share loras", "export stack"],
            is_output_node=True,
            inputs=[
                sockets.Stack.Input("stack", tooltip="The stack to save, from Tandem LoRA Stack."),
                io.String.Input(
                    "name",
                    tooltip="1 to 80 characters, as a file can be called. For example anime fast.",
                ),
                io.String.Input(
                    "note",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the stack is for, for yourself and others. For example: good for rain at night.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace another stack of this name (true), or stop (false). What is replaced is kept "
                    "in the folder .deleted.",
                ),
            ],
            outputs=[
                sockets.Stack.Output(display_name="stack"),
                io.String.Output(display_name="recipe"),
                io.String.Output(display_name="path"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        # A name that comes over a link is None here.
        return sockets.first_error(lambda: name is None or checked_name(name))

    @classmethod
    def fingerprint_inputs(cls, name: str = "", **_: object) -> float:
        """A stack that was deleted or changed since is saved again."""
        path = recipe_store().path(name)
        return path.stat().st_mtime if path.exists() else 0.0

    @classmethod
    def execute(
        cls, stack: LoraStack, name: str, note: str = "", overwrite: bool = False
    ) -> io.NodeOutput:
        recipe = recipe_here(stack, name=checked_name(name), note=note)
        path = recipe_store().save(recipe, overwrite=overwrite)
        node_text(cls.hidden.unique_id, f"saved as {path.stem}: {_counts(recipe)}")
        return io.NodeOutput(stack, recipe_text(recipe), str(path))


class TandemLoadStack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemLoadStack",
            display_name="Tandem Load Stack",
            category="Tandem/lora",
            description="A saved stack, an example, or a recipe that somebody sent. Files are found by name or, "
            "renamed or moved, by their content; a missing one is refused when the prompt is queued, with what may be "
            "meant.",
            search_aliases=["load lora stack", "lora preset", "import stack", "example loras"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=[EXAMPLE, *(name for name in known_names() if name != EXAMPLE)],
                    default=EXAMPLE,
                    optional=True,
                    tooltip="A saved stack, or an example, whose files you choose in files. For example example: "
                    "fast anime.",
                ),
                io.String.Input(
                    "recipe",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="A recipe's JSON, pasted; it goes before name. Empty for the stack of that name.",
                ),
                io.String.Input(
                    "files", default="", multiline=True, optional=True, tooltip=FILES_TIP
                ),
                _changed(),
                sockets.Stack.Input(
                    "stack", optional=True, tooltip="A stack whose rows come before these."
                ),
            ],
            outputs=[
                sockets.Stack.Output(display_name="stack"),
                io.String.Output(display_name="triggers"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def validate_inputs(
        cls,
        name: str | None = EXAMPLE,
        recipe: str | None = "",
        files: str | None = "",
        changed: str | None = "warn",
    ) -> bool | str:
        if None in (name, recipe, files, changed):  # something comes over a link
            return True
        # Files may have to be hashed, and the host asks in its event loop.
        return await asyncio.to_thread(
            sockets.first_error,
            lambda: loaded(recipe_given(str(name), str(recipe)), str(files), str(changed)),
        )

    @classmethod
    def fingerprint_inputs(
        cls, name: str = EXAMPLE, recipe: str = "", files: str = "", **_: object
    ) -> str:
        """A stack saved anew under its name is another, and so is one with an overwritten LoRA."""
        return _state(loaded(recipe_given(name, recipe), files, "warn")[0])

    @classmethod
    def execute(
        cls,
        name: str = EXAMPLE,
        recipe: str = "",
        files: str = "",
        changed: str = "warn",
        stack: LoraStack | None = None,
    ) -> io.NodeOutput:
        found, resolution = loaded(recipe_given(name, recipe), files, changed)
        merged = (stack or LoraStack()).then(found.stack())
        report = _report(found, resolution)
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(merged, ", ".join(merged.triggers), report)


class TandemStackFromVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemStackFromVideo",
            display_name="Tandem Stack From Video",
            category="Tandem/lora",
            description="The stack with which a saved video or picture was made: from the recipe that Tandem Apply "
            "Stack puts into it, or from the graph that ComfyUI stores. Works for mp4, webm, png and webp.",
            search_aliases=["lora from video", "read metadata", "recipe from video"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=media_names(),
                    upload=io.UploadType.video,
                    optional=True,
                    tooltip="A file of the input folder, or of the output folder with ' [output]' behind it. For "
                    "example video/ComfyUI_00001_.mp4 [output].",
                ),
                io.String.Input(
                    "node",
                    default="",
                    optional=True,
                    tooltip="The id of a Tandem Apply Stack, if the graph had several with different stacks. For "
                    "example 7.",
                ),
                io.String.Input(
                    "files", default="", multiline=True, optional=True, tooltip=FILES_TIP
                ),
                _changed(),
            ],
            outputs=[
                sockets.Stack.Output(display_name="stack"),
                io.String.Output(display_name="report"),
                io.String.Output(display_name="triggers"),
                io.String.Output(display_name="recipe"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    async def validate_inputs(
        cls,
        file: str | None = None,
        node: str | None = "",
        files: str | None = "",
        changed: str | None = "warn",
    ) -> bool | str:
        if None in (file, node, files, changed):
            return True
        return await asyncio.to_thread(
            sockets.first_error,
            lambda: loaded(_from_file(file, str(node)), str(files), str(changed)),
        )

    @classmethod
    def fingerprint_inputs(
        cls, file: str | None = None, node: str = "", files: str = "", **_: object
    ) -> str:
        return _state(loaded(_from_file(file, node), files, "warn")[0])

    @classmethod
    def execute(
        cls, file: str | None = None, node: str = "", files: str = "", changed: str = "warn"
    ) -> io.NodeOutput:
        found, resolution = loaded(_from_file(file, node), files, changed)
        report = _report(found, resolution)
        node_text(cls.hidden.unique_id, report)
        stack = found.stack()
        return io.NodeOutput(stack, report, ", ".join(stack.triggers), recipe_text(found))


def _changed() -> io.Combo.Input:
    return io.Combo.Input(
        "changed", options=["warn", "error"], default="warn", optional=True, tooltip=CHANGED_TIP
    )


def _from_file(file: str | None, node: str) -> Recipe:
    path = media_path(file)
    recipe = read_video_recipe(path, node.strip())
    if recipe is None:
        raise UserError(
            f"{path.name} tells of no stack.",
            "A stack is told by a file that a graph with Tandem Apply Stack has saved, unless the host runs with "
            "--disable-metadata or another program has written the file anew.",
            "Take the file as ComfyUI saved it.",
        )
    return recipe


def _state(recipe: Recipe) -> str:
    """Changes with the recipe, with every file that a row uses, and with the other half that such a file may find."""
    used = row_files(tuple(row for row in recipe.rows if row.on))
    stats = [path.stat() for name in used if (path := path_here(name)) is not None]
    files = [(stat.st_mtime_ns, stat.st_size) for stat in stats]
    return f"{recipe_text(recipe)} {files} {loras.state_of(recipe.rows)}"


def _report(recipe: Recipe, resolution: Resolution) -> str:
    lines = [f"{recipe.name}: {_counts(recipe)}" if recipe.name else _counts(recipe)]
    return "\n".join(filter(None, [*lines, recipe.note, resolution.text()]))


def _counts(recipe: Recipe) -> str:
    on = sum(row.on for row in recipe.rows)
    return f"{on} of {len(recipe.rows)} rows on, {len(row_files(recipe.rows))} files"
