"""Both stages one after the other, from scenes to a checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPModel, LlavaForConditionalGeneration

from pruners.errors import SettingsError
from search.embedded.architecture import (
    DECODER_LAYERS,
    DECODER_WIDTH,
    HEAD_WIDTH,
    build_clip,
    build_llava,
)
from search.embedded.benchmark import load_split
from search.embedded.tokenizer import build_tokenizer
from search.embedded.training.data import TrainingScenes, draw_training_scenes
from search.embedded.training.decoder import PlaceHeads, cache_features, decoder_loss
from search.embedded.training.export import export_checkpoint
from search.embedded.training.loop import StageSettings, StageState, train_stage
from search.embedded.training.progress import SearchSplitProbe
from search.embedded.training.tower import TowerHeads, tower_labels, tower_loss

Report = Callable[[str, dict[str, float]], None]


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides what is trained, and for how long.

    Attributes:
        seed: Seed of scenes, weights and batches.
        scenes: Number of training scenes.
        decoder_layers, decoder_width: Sizes of the decoder; a width is a multiple of 32.
        towers: Folder of paired towers that are taken as they are; None trains them.
        tower_minutes, decoder_minutes: Limits of the stages in minutes; None for none.
        tower_steps, decoder_steps: Limits of the stages in steps; None for none.
        tower_batch, decoder_batch: Images per step.
        tower_learning_rate, decoder_learning_rate: Highest learning rates.
        workers: Processes that draw scenes.
        compiled: Whether torch.compile speeds up both stages; it needs a C++ compiler.
        save_seconds: Seconds between saves.
    """

    seed: int = 0
    scenes: int = 60_000
    decoder_layers: int = DECODER_LAYERS
    decoder_width: int = DECODER_WIDTH
    towers: str | None = None
    tower_minutes: float | None = 22.0
    decoder_minutes: float | None = 46.0
    tower_steps: int | None = None
    decoder_steps: int | None = None
    tower_batch: int = 64
    decoder_batch: int = 24
    tower_learning_rate: float = 1.5e-3
    decoder_learning_rate: float = 1.5e-3
    workers: int = 2
    compiled: bool = False
    save_seconds: float = 60.0


def _batches(scenes: TrainingScenes, size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(scenes.objects), size):
        rows = np.arange(start, min(start + size, len(scenes.objects)))
        yield scenes.pixels(rows)


def _train_tower(
    settings: TrainingSettings,
    scenes: TrainingScenes,
    folder: Path,
    device: torch.device,
    report: Report,
) -> CLIPModel:
    clip = build_clip().to(device)
    # Eager attention trains twice as fast as SDPA at these sizes on a CPU in bfloat16.
    clip.set_attn_implementation("eager")
    heads = TowerHeads(clip.config.vision_config.hidden_size).to(device)
    tokenizer, labels = build_tokenizer(closed=True), tower_labels(scenes)
    if settings.compiled:
        clip.vision_model.compile()

    def loss(rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = rng.integers(0, len(scenes.objects), settings.tower_batch)
        with torch.autocast(device.type, torch.bfloat16):
            return tower_loss(clip, heads, tokenizer, scenes, labels, rows, rng)

    train_stage(
        StageSettings(
            "tower",
            settings.tower_minutes,
            settings.tower_steps,
            settings.tower_learning_rate,
            save_seconds=settings.save_seconds,
        ),
        {"clip": clip, "heads": heads},
        loss,
        folder,
        settings.seed,
        lambda entry: report("tower", entry),
    )
    # A compiled module would travel with its compiled code; the trained weights go to a fresh one.
    trained = build_clip()
    trained.load_state_dict(clip.state_dict())
    return trained.to(device).eval().requires_grad_(False)


def _read_towers(folder: str) -> CLIPModel:
    clip = build_clip()
    try:
        trained = CLIPModel.from_pretrained(folder, local_files_only=True)
        clip.load_state_dict(trained.state_dict())
    except (OSError, RuntimeError) as error:
        raise SettingsError(
            f"{folder} has no paired towers of the embedded model's sizes ({error}); give the "
            "folder clip of a checkpoint that search.embedded.train wrote"
        ) from error
    return clip.eval().requires_grad_(False)


def _train_decoder(
    settings: TrainingSettings,
    scenes: TrainingScenes,
    clip: CLIPModel,
    folder: Path,
    device: torch.device,
    report: Report,
) -> LlavaForConditionalGeneration:
    llava = build_llava(settings.decoder_layers, settings.decoder_width).to(device)
    llava.model.vision_tower.load_state_dict(clip.vision_model.state_dict())
    llava.model.vision_tower.requires_grad_(False)
    llava.set_attn_implementation("eager")
    heads = PlaceHeads(llava.config.text_config.hidden_size).to(device)
    features = cache_features(clip, _batches(scenes, settings.tower_batch), device)
    probe = SearchSplitProbe(clip, load_split("search"), device)
    if settings.compiled:
        llava.model.language_model.compile()

    def loss(rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = rng.integers(0, len(scenes.objects), settings.decoder_batch)
        seen = features[torch.from_numpy(rows)].to(device)
        with torch.autocast(device.type, torch.bfloat16):
            return decoder_loss(llava, heads, seen, scenes.packed, rows, rng)

    def probe_and_export(state: StageState) -> None:
        entry = {"step": float(state.step), "seconds": round(state.seconds, 1)}
        entry.update(probe.measure(llava))
        with (folder / "search_accuracy.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        report("search split", entry)
        export_checkpoint(llava, clip, folder / "checkpoint")

    train_stage(
        StageSettings(
            "decoder",
            settings.decoder_minutes,
            settings.decoder_steps,
            settings.decoder_learning_rate,
            save_seconds=settings.save_seconds,
        ),
        {"llava": llava, "heads": heads},
        loss,
        folder,
        settings.seed,
        lambda entry: report("decoder", entry),
        probe_and_export,
    )
    return llava.eval()


def train(settings: TrainingSettings, folder: Path, device: torch.device, report: Report) -> Path:
    """Train the embedded model, continuing what an earlier call in the same folder began.

    Args:
        settings: What is trained, and for how long.
        folder: Where logs, states and, as ``checkpoint``, the model are written.
        device: Where to compute.
        report: Called with a stage's name and each of its log entries.

    Returns:
        The checkpoint folder.

    Raises:
        SettingsError: A stage has no limit, a width is none, the folder belongs to other settings,
            or the towers cannot be read.
    """
    if settings.decoder_width < HEAD_WIDTH or settings.decoder_width % HEAD_WIDTH:
        raise SettingsError(
            f"the decoder is {settings.decoder_width} wide; give a multiple of {HEAD_WIDTH}"
        )
    for stage in ("tower", "decoder"):
        limits = [getattr(settings, f"{stage}_{unit}") for unit in ("minutes", "steps")]
        if limits == [None, None]:
            raise SettingsError(f"the {stage} stage has no limit; give it minutes or steps")
    towers = None if settings.towers is None else _read_towers(settings.towers)
    folder.mkdir(parents=True, exist_ok=True)
    described = json.dumps(asdict(settings), indent=2, sort_keys=True)
    written = folder / "settings.json"
    if written.exists() and json.loads(written.read_text()) != json.loads(described):
        raise SettingsError(
            f"{folder} holds a training with other settings ({written}); choose another folder"
        )
    written.write_text(described + "\n", encoding="utf-8")
    torch.manual_seed(settings.seed)
    scenes = draw_training_scenes(settings.seed, settings.scenes, settings.workers)
    if towers is None:
        clip = _train_tower(settings, scenes, folder, device, report)
    else:
        clip = towers.to(device)
    llava = _train_decoder(settings, scenes, clip, folder, device, report)
    checkpoint = folder / "checkpoint"
    export_checkpoint(llava, clip, checkpoint)
    return checkpoint
