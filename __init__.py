"""Tandem: trains Wan video LoRAs and samples with them in one ComfyUI graph, on one copy of the model."""

import logging

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():  # noqa: ANN201 - the type belongs to ComfyUI, which tests may not have
    """Called by ComfyUI; the nodes are imported here, not above, so that the libraries load without it."""
    try:
        from .nodes.extension import TandemExtension
    except Exception:
        # The host shows only the message of what is raised in here.
        logging.getLogger("tandem").exception("Tandem could not be loaded.")
        raise
    return TandemExtension()
