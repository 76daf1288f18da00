"""Checkpoints: a folder a step, renamed into place when all of it is written."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..wan.families import Role
from ..wan.lora.adapters import AdapterSet
from ..wan.lora.files import adapter_tensors, read_metadata, tandem_metadata
from .expert_trainer import ExpertTrainer
from .optimizers.memory import packed, restore
from .plans.settings import PruneSettings
from .records import write_text

logger = logging.getLogger("tandem.training")

# Not .safetensors: it lies under a LoRA folder and is none.
STATE_FILE = "resume.state"
UNREADABLE = "resume.unreadable"
PUBLISHING = "publishing.json"
"""Role to step of the files that are being put in the loras folder; there only as long as that takes."""
OLD = ".old"
KEPT_STATES = 2
"""Checkpoints that can be resumed: the newest, and one to fall back on."""
_STEP_FOLDER = re.compile(r"step_(\d{6,})")


def lora_file_name(name: str, role: Role) -> str:
    """`NAME_high_noise.safetensors`; a single model's file is called NAME alone."""
    return f"{name}.safetensors" if role == "single" else f"{name}_{role}.safetensors"


class CheckpointStore:
    """The checkpoints of one run, below its folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def steps(self) -> list[int]:
        """Steps that have a whole checkpoint, in order."""
        found = [_STEP_FOLDER.fullmatch(path.name) for path in self.folder.glob("step_*")]
        return sorted(int(match[1]) for match in found if match)

    def file(self, step: int, role: Role) -> Path:
        """Where one expert's LoRA of a step lies."""
        return self._step_folder(step) / lora_file_name(f"{self.name}_{step:06d}", role)

    def average_file(self, step: int, role: Role) -> Path:
        """Where the average of one expert's LoRA lies, in a run that keeps one."""
        return self._step_folder(step) / lora_file_name(f"{self.name}_{step:06d}_ema", role)

    def save(
        self, step: int, trainers: Mapping[Role, ExpertTrainer], metadata: Mapping[str, object]
    ) -> None:
        """All experts and what resuming needs; the states of the two newest steps are kept."""
        target = self._step_folder(step)
        if (target / STATE_FILE).is_file():
            return
        beside = self.folder / f".{target.name}.{secrets.token_hex(4)}"
        beside.mkdir(parents=True)
        try:
            files = self._write_loras(beside, step, trainers, metadata)
            save_file(_resume_tensors(trainers), beside / STATE_FILE)
            # Named as LoRAs last: the host lists .safetensors in hidden folders too.
            for part, name in files.items():
                os.replace(part, beside / name)
            _put_in_place(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        for earlier in self.steps()[:-KEPT_STATES]:
            (self._step_folder(earlier) / STATE_FILE).unlink(missing_ok=True)

    def resume(self, trainers: Mapping[Role, ExpertTrainer]) -> int:
        """Loads the newest checkpoint that can be resumed into the trainers; returns its step, or 0.

        Clears away what a killed run was writing.
        """
        self.clear()
        for step in reversed(self.steps()):
            state = self._step_folder(step) / STATE_FILE
            if not state.is_file():
                continue
            try:
                tensors = load_file(state)
            except SafetensorError as error:
                logger.warning(
                    "%s cannot be read (%s): an earlier checkpoint is taken.", state, error
                )
                # Under its own name it would pass for whole: the run would not save this step again.
                os.replace(state, state.with_name(UNREADABLE))
                continue
            _load_tensors(trainers, tensors)
            return step
        return 0

    def resumable_step(self) -> int:
        """The newest step that a run could go on from; 0 where there is none."""
        return max(self._resumable(), default=0)

    def publish(self, steps: Mapping[Role, int], target: Path) -> dict[Role, Path]:
        """Copies each expert's file of its step to `target` as NAME_high_noise and NAME_low_noise: all are copied
        beside, then all renamed. What a kill has left undone is done by `finish_publishing`."""
        target.mkdir(parents=True, exist_ok=True)
        self.clear_unpublished(tuple(steps), target)
        beside: dict[Role, Path] = {
            role: target / f".{self.name}.{role}.{secrets.token_hex(4)}" for role in steps
        }
        final: dict[Role, Path] = {role: target / lora_file_name(self.name, role) for role in steps}
        try:
            for role, path in beside.items():
                shutil.copyfile(self.file(steps[role], role), path)
            write_text(self.folder / PUBLISHING, json.dumps(dict(steps)))
            for role, path in beside.items():
                os.replace(path, final[role])
            (self.folder / PUBLISHING).unlink()
        finally:
            for path in beside.values():
                path.unlink(missing_ok=True)
        return final

    def finish_publishing(self, target: Path) -> None:
        """Does what a process did not live to do: of two files one may be new and the other old."""
        try:
            steps = json.loads((self.folder / PUBLISHING).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (
            ValueError
        ):  # what a power cut leaves of a file; the run publishes again when it goes on
            (self.folder / PUBLISHING).unlink()
            return
        if all(self._ours(self.file(step, role), target, role) for role, step in steps.items()):
            self.publish(steps, target)
        else:
            (self.folder / PUBLISHING).unlink()

    def _ours(self, file: Path, target: Path, role: Role) -> bool:
        """Is the file there, and what it would replace of the same run?"""
        there = target / lora_file_name(self.name, role)
        if not (file.is_file() and there.is_file()):
            return file.is_file()
        one, two = (tandem_metadata(read_metadata(path)) for path in (file, there))
        return one.get("pair_id") == two.get("pair_id")

    def prune(self, settings: PruneSettings, keep: Collection[int]) -> list[int]:
        """Deletes the checkpoints that the settings do not keep, nor `keep`, and returns their steps. The last stays,
        and so does what a run can go on from; each goes at once, by a rename."""
        if not (settings.last or settings.every):
            return []
        steps = self.steps()
        kept = {*keep, *steps[-max(1, settings.last) :], *self._resumable()}
        if settings.every:
            kept |= {step for step in steps if step % settings.every == 0}
        gone = [step for step in steps if step not in kept]
        for step in gone:
            folder = self._step_folder(step)
            aside = self.folder / f".{folder.name}.{secrets.token_hex(4)}"
            try:
                os.replace(folder, aside)
            except OSError as error:  # somebody reads one of its files, where that forbids it
                logger.warning("%s cannot be deleted now (%s).", folder, error)
                continue
            shutil.rmtree(aside, ignore_errors=True)
        return gone

    def clear(self) -> None:
        """Takes away what a killed process was writing or deleting; a checkpoint that it was replacing comes back."""
        for unfinished in self.folder.glob(".step_*"):
            target = self.folder / unfinished.name[1:].split(".")[0]
            if unfinished.suffix == OLD and not target.exists():
                os.replace(unfinished, target)
            else:
                shutil.rmtree(unfinished, ignore_errors=True)

    def _resumable(self) -> list[int]:
        return [s for s in self.steps() if (self._step_folder(s) / STATE_FILE).is_file()]

    def clear_unpublished(self, roles: tuple[Role, ...], target: Path) -> None:
        """Removes what a killed run was copying to `target`. For whoever trains the run, and nobody else does."""
        for role in roles:
            for path in target.glob(f".{self.name}.{role}.{'[0-9a-f]' * 8}"):
                path.unlink(missing_ok=True)

    def _write_loras(
        self,
        beside: Path,
        step: int,
        trainers: Mapping[Role, ExpertTrainer],
        metadata: Mapping[str, object],
    ) -> dict[Path, str]:
        """Each expert's LoRA and, where one is kept, its average; the files by the names they are to have."""
        files = {}
        for role, trainer in trainers.items():
            part = beside / f"{role}.part"
            entries = _lora_metadata(metadata, role, step, trainer)
            save_file(adapter_tensors(trainer.adapters), part, metadata=entries)
            files[part] = self.file(step, role).name
            if averaged := trainer.averaged():
                part = beside / f"{role}_ema.part"
                common = _average_metadata(metadata, trainer)
                entries = _lora_metadata(common, role, step, trainer)
                save_file(adapter_tensors(averaged), part, metadata=entries)
                files[part] = self.average_file(step, role).name
        return files

    def _step_folder(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}"


def _put_in_place(beside: Path, target: Path) -> None:
    """Renames a whole checkpoint into place; one that a run does again takes the place of the old."""
    old = beside.with_name(f"{beside.name}{OLD}")
    if target.is_dir():
        os.replace(target, old)
    os.replace(beside, target)
    shutil.rmtree(old, ignore_errors=True)


def _lora_metadata(
    common: Mapping[str, object], role: Role, step: int, trainer: ExpertTrainer
) -> dict[str, str]:
    # Those that most of its layers have: what a program shows that knows one rank a file.
    counts = Counter((a.rank, a.alpha) for a in trainer.adapters.values())
    rank, alpha = max(counts, key=lambda pair: (counts[pair], pair))
    entry = {**common, "expert": role, "step": step, "rank": rank, "alpha": alpha}
    return {
        "tandem": json.dumps(entry),
        # The words by which other programs show a LoRA.
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_steps": str(step),
        "ss_output_name": str(common.get("name", "")),
        "modelspec.title": str(common.get("name", "")),
        "modelspec.architecture": "wan/lora",
        "modelspec.trigger_phrase": str(common.get("trigger", "")),
    }


def _average_metadata(common: Mapping[str, object], trainer: ExpertTrainer) -> dict[str, object]:
    """An average is no partner of the weights that it lies beside: its pair has a name of its own."""
    own = {n: f"{common[n]}-ema" for n in ("pair_id",) if n in common}
    return {**common, **own, "ema": trainer.plan.optimizer.ema}


def _resume_tensors(trainers: Mapping[Role, ExpertTrainer]) -> dict[str, torch.Tensor]:
    tensors = {}
    for role, trainer in trainers.items():
        for index, weight in enumerate(trainer.adapters.parameters()):
            tensors[f"{role}/weight/{index}"] = weight
        if trainer.average:
            for index, average in enumerate(trainer.average.tensors):
                tensors[f"{role}/average/{index}"] = average
        if trainer.alphas:
            signs, phases = trainer.alphas.state()
            tensors |= {f"{role}/alphas/{name}": tensor for name, tensor in signs.items()}
            tensors[f"{role}/alpha values"] = _as_bytes(phases)
        memory, values = packed(trainer.optimizer)
        tensors |= {f"{role}/state/{name}": tensor for name, tensor in memory.items()}
        tensors[f"{role}/values"] = _as_bytes(values)
    # Tensors that share storage (an expanded rate, say) cannot be written as they are.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _as_bytes(values: Mapping[str, object]) -> torch.Tensor:
    """JSON as a tensor: a state file holds nothing else."""
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)


def _from_bytes(tensor: torch.Tensor | None) -> dict[str, object]:
    """Empty for a file from before there were such values."""
    return {} if tensor is None else json.loads(bytes(tensor.tolist()))


def _load_tensors(
    trainers: Mapping[Role, ExpertTrainer], tensors: Mapping[str, torch.Tensor]
) -> None:
    for role, trainer in trainers.items():
        _load_weights(
            trainer.adapters,
            {k: t for k, t in tensors.items() if k.startswith(f"{role}/weight/")},
            role,
        )
        memory = _below(tensors, f"{role}/state/")
        restore(trainer.optimizer, memory, _from_bytes(tensors.get(f"{role}/values")))
        _load_average(trainer, tensors)
        if trainer.alphas:
            phases = _from_bytes(tensors.get(f"{role}/alpha values"))
            trainer.alphas.restore(_below(tensors, f"{role}/alphas/"), phases)


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _load_average(trainer: ExpertTrainer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Where the file has none, the average begins at the weights."""
    if trainer.average is None:
        return
    for index, weight in enumerate(trainer.adapters.parameters()):
        saved = tensors.get(f"{trainer.role}/average/{index}", weight.detach())
        trainer.average.tensors[index] = saved.to(weight.device, torch.float32, copy=True)


def _load_weights(adapters: AdapterSet, tensors: Mapping[str, torch.Tensor], role: Role) -> None:
    with torch.no_grad():
        for index, weight in enumerate(adapters.parameters()):
            weight.copy_(tensors[f"{role}/weight/{index}"])
