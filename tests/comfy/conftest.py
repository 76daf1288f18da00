"""Models as the host's own loaders give them, in the mode in which the host runs nodes."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def _host(comfy):
    return comfy


@pytest.fixture
def pair(comfy, family):
    """Fresh MODELs of both experts; loaded in inference mode, as a prompt does."""
    with torch.inference_mode():
        return {
            "high_noise": comfy.sd.load_diffusion_model(str(family.high_noise)),
            "low_noise": comfy.sd.load_diffusion_model(str(family.low_noise)),
        }


@pytest.fixture(scope="session")
def vae(comfy, family):
    import comfy.utils

    with torch.inference_mode():
        return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(family.vae)))


@pytest.fixture(scope="session")
def clip(comfy, family):
    from tandem_wan.nodes.host.text_encoder import load_text_encoder

    with torch.inference_mode():
        return load_text_encoder(family.text_encoder)


@pytest.fixture
def encoded(pair, vae, clip, clips):
    """The three real clips as the networks see them."""
    from tandem_wan.dev import training_rig

    return training_rig.encode(pair, vae, clip, clips)


class Host:
    """The host's own validation and execution, with our nodes and two of the test's."""

    def __init__(self, folder, classes):
        import execution

        self.folder, self.nodes, self.kept, self.given = folder, classes, {}, []
        self._execution = execution
        server = SimpleNamespace(
            client_id=None, last_node_id=None, last_prompt_id=None, send_sync=_nothing
        )
        self._executor = execution.PromptExecutor(
            server, cache_type=execution.CacheType.CLASSIC, cache_args={"ram": 0, "ram_inactive": 0}
        )

    def lora(self, name, *, trigger="", rank=2):
        """A small LoRA that the tiny networks have a layer for."""
        path = self.folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        layer = "diffusion_model.blocks.0.self_attn.q"
        tensors = {
            f"{layer}.lora_A.weight": torch.full((rank, 128), 0.01),
            f"{layer}.lora_B.weight": torch.full((128, rank), 0.01),
        }
        metadata = {"tandem": json.dumps({"trigger": trigger})} if trigger else {}
        save_file(tensors, path, metadata=metadata)

    def give(self, value):
        self.given.append(value)
        return self.node("TestGive", index=self.given.index(value))

    @staticmethod
    def node(class_type, **inputs):
        return {"class_type": class_type, "inputs": inputs}

    def stack(self, prompt=None, **inputs):
        stack, self.triggers, self.report = self.run(prompt, "TandemLoraStack", **inputs)
        return stack

    def run(self, prompt, class_type, **inputs):
        prompt = self._whole(prompt, class_type, inputs)
        valid, error, good, _ = self._validate(prompt)
        assert valid, error
        executor = self._executor
        self.made = 0
        with ThreadPoolExecutor(1) as thread, torch.inference_mode():
            thread.submit(executor.execute, prompt, "prompt", {}, good).result()
        for event, data in executor.status_messages:
            if event == "execution_error":
                raise RuntimeError(data["exception_message"])
            if event == "execution_cached":
                self.made = int("node" not in data["nodes"])
        return [self.kept[n] for n in range(3) if n in self.kept]

    def refused(self, prompt, **inputs):
        prompt = self._whole(prompt, "TandemLoraStack", inputs)
        valid, _, _, errors = self._validate(prompt)
        assert not valid
        said = " ".join(f"{e['message']} {e['details']}" for e in errors["node"]["errors"])
        assert "Exception" not in said
        return SimpleNamespace(search=lambda pattern: _found(pattern, said))

    def _whole(self, prompt, class_type, inputs):
        count = {"TandemLoraStack": 3, "TandemApplyStack": 3, "TandemToLoraStack": 3}.get(
            class_type, 2
        )
        whole = {**(prompt or {}), "node": self.node(class_type, **inputs)}
        keeps = [f"keep_{n}" for n in range(count) if class_type != "TandemApplyStack" or n == 2]
        whole |= {
            k: self.node("TestKeep", value=["node", int(k[-1])], place=int(k[-1])) for k in keeps
        }
        self.kept.clear()
        if class_type == "TandemApplyStack":
            self.kept |= {0: None, 1: None}
        return json.loads(json.dumps(whole))

    def _validate(self, prompt):
        with ThreadPoolExecutor(1) as thread:
            check = self._execution.validate_prompt("prompt", prompt, None)
            return thread.submit(asyncio.run, check).result()


@pytest.fixture
def host(comfy, tmp_path, monkeypatch):
    import folder_paths
    from comfy_api.latest import io
    from tandem_wan.nodes.interop import TandemFromLoraStack, TandemToLoraStack
    from tandem_wan.nodes.stack import TandemApplyStack, TandemLoraStack

    import nodes

    ours = [TandemLoraStack, TandemApplyStack, TandemFromLoraStack, TandemToLoraStack]
    host = Host(tmp_path / "loras", ours)

    class TestGive(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(
                "TestGive", inputs=[io.Int.Input("index")], outputs=[io.AnyType.Output()]
            )

        @classmethod
        def execute(cls, index):
            return io.NodeOutput(host.given[index])

    class TestKeep(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            inputs = [io.AnyType.Input("value"), io.Int.Input("place")]
            return io.Schema("TestKeep", is_output_node=True, not_idempotent=True, inputs=inputs)

        @classmethod
        def fingerprint_inputs(cls, **_):
            return float("nan")

        @classmethod
        def execute(cls, value, place):
            host.kept[place] = value
            return io.NodeOutput()

    for node in (*ours, TestGive, TestKeep):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)
    (tmp_path / "loras").mkdir()
    roots = ([str(tmp_path / "loras")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", roots)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for name in ("x_high_noise", "x_low_noise", "style"):
        host.lora(name)
    return host


def _nothing(*_):
    pass


def _found(pattern, text):
    import re

    assert re.search(pattern, text, re.DOTALL), text
    return True
