"""Tries `clipskip advise` where the truth is known, and writes every answer to one JSON file; resumable.

    python training/trials.py --model FILE --loras DIR --tunes DIR --evaluation FILE --judge FILE --out FILE
        [--only pictures uptake]

Models: the base (trained at 2) and fine-tunes of it, skipN-SEED.safetensors. LoRAs: NAME.safetensors (2) and
NAME-skipN.safetensors. Pictures are rendered anew for it: none was in any training.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from drawing import render
from judge import NOTHING, THINGS, Judge, load_judge, look, small
from numpy.typing import NDArray
from world import CHARACTERS, Scene, caption, sample_scene

from clipskip.advise.advice import SCENES, TEXTS, tag_texts
from clipskip.advise.prompted import Prompted, Question, measure
from clipskip.advise.trained import (
    CANDIDATES,
    DRAWINGS,
    LEAST,
    Captioned,
    Trained,
    by_difference,
    by_drawings,
    by_footprint,
    by_pictures,
)
from clipskip.encode import TextReader
from clipskip.image import encode
from clipskip.measures.probe import Probe
from clipskip.spec import ClipSkip, LoraRef, Request
from clipskip.sweep import Drawn, Extras, Model, open_model, resolve
from clipskip.weights import Library
from clipskip.weights.lora import load_lora

PICTURES, SETS, PROMPTS, PULLS = 64, 3, 50, 24
BASE, SKIPS = 2, tuple(range(1, 13))
BASE_SEED = 1000
SOUNDNESS = ("guidance_kept", "guidance_size", "conditioning_distance", "change", "contrast", "detail")


def truth_of(path: Path) -> int:
    """The Clip Skip in a file's name; the base's where there is none."""
    found = re.search(r"skip(\d+)", path.stem)
    return int(found[1]) if found else BASE


def captioned(split: str, count: int, seed: int, model: Model) -> list[Captioned]:
    """Pictures of a split, rendered now, and their captions."""
    rng = random.Random(f"trials {split} {seed}")
    scenes = [replace(sample_scene(rng, split=split), quality=None) for _ in range(count)]
    pictures = np.stack([render(scene) for scene in scenes])
    latents = torch.cat([encode(model.vae, part) for part in np.array_split(pictures, max(1, count // 16))])
    return [Captioned(latent=one, caption=caption(scene, rng)) for one, scene in zip(latents, scenes, strict=True)]


def probe_of(model: Model, reader: TextReader) -> Probe:
    """The model as a picture with no settings is drawn."""
    return Probe.of(model, reader, resolve(Request(prompt="", seed=0), model.facts, Library.of_user())[0])


def answers(looks: Iterator[Trained], truth: int) -> dict[str, object]:
    """The end of a test, and how sure it was and whether right after each look."""
    every = list(looks)
    last = every[-1]
    path = [[round(one.sure, 4), one.skip == truth] for one in every[LEAST - 1 :]]
    return asdict(last) | {"right": last.skip == truth, "path": path}


def splits_of(lora: Path) -> str:
    """Which scenes a LoRA is of."""
    return lora.stem.split("-")[0]


class Trials:
    """The files, and the answers so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.found: dict[str, dict[str, object]] = json.loads(options.out.read_text()) if options.out.exists() else {}
        self.models = [options.model, *sorted(options.tunes.glob("*.safetensors"))]
        self.loras = sorted(options.loras.glob("*.safetensors"))

    def keep(self, part: str, case: str, found: dict[str, object]) -> None:
        """Writes an answer down."""
        self.found.setdefault(part, {})[case] = found
        self.options.out.write_text(json.dumps(self.found, indent=1) + "\n")
        said = {key: value for key, value in found.items() if key not in ("path", "curves")}
        print(part, case, json.dumps(said)[:300], flush=True)

    def has(self, part: str, case: str) -> bool:
        """Whether it is known already."""
        return case in self.found.get(part, {})

    def pictures(self) -> None:
        """Captioned pictures: models on held-out scenes, LoRAs on scenes of their own."""
        for path in self.models:
            model = open_model(str(path))
            for number in range(SETS):
                case = f"{path.stem} {number}"
                if not self.has("pictures", case):
                    own = captioned("heldout", PICTURES, number, model)
                    probe = probe_of(model, model.reader)
                    truth = truth_of(path)
                    self.keep(
                        "pictures", case, {"truth": truth} | answers(by_pictures(probe, own, seed=1000 * number), truth)
                    )
        model = open_model(str(self.options.model))
        for path in self.loras:
            for number in range(SETS):
                case = f"{path.stem} {number}"
                if not self.has("pictures", case):
                    own, truth = captioned(splits_of(path), PICTURES, number, model), truth_of(path)
                    with with_lora(model, path) as reader:
                        looks = by_pictures(probe_of(model, reader), own, seed=1000 * number)
                        self.keep("pictures", case, {"truth": truth} | answers(looks, truth))

    def drawings(self) -> None:
        """The models' own drawings of scenes that anybody might ask for."""
        for path in self.models:
            case, truth = path.stem, truth_of(path)
            if self.has("drawings", case):
                continue
            model = open_model(str(path))
            base, _ = resolve(Request(prompt=SCENES[0], seed=0), model.facts, Library.of_user())
            renders = [replace(base, prompt=text, seed=n) for n, text in enumerate(SCENES * 2)][:DRAWINGS]
            looks = by_drawings(probe_of(model, model.reader), renders)
            self.keep("drawings", case, {"truth": truth} | answers(looks, truth))

    def footprints(self) -> None:
        """The LoRAs' weights."""
        model = open_model(str(self.options.model))
        for path in self.loras:
            lora, truth = load_lora(path), truth_of(path)
            with with_lora(model, path) as reader:
                found = by_footprint(lora, reader, tag_texts(lora, ""), skips=CANDIDATES)
            assert found is not None
            self.keep(
                "footprints", path.stem, {"truth": truth, "texts": TEXTS, "right": found.skip == truth} | asdict(found)
            )

    def differences(self) -> None:
        """What changed in the fine-tunes since their base."""
        model = open_model(str(self.options.model))
        for path in self.models[1:]:
            truth = truth_of(path)
            found = by_difference(path, self.options.model, model.reader, SCENES, skips=CANDIDATES)
            self.keep("differences", path.stem, {"truth": truth, "right": found.skip == truth} | asdict(found))

    def uptake(self) -> None:
        """What is measured of prompts at Clip Skip 1 to 12, beside the judge's curves of drawn pictures."""
        judged = json.loads(self.options.evaluation.read_text())["curve"]
        model, library = open_model(str(self.options.model)), Library((self.options.loras,))
        for name in CHARACTERS:
            curve = list(judged[f"{name}, its LoRA"].values())
            kept = prompted_mean(model, library, name)
            shares = {key: correlation(values, curve) for key, values in kept.items()}
            self.keep("uptake", name, {"judged": curve, "rank correlation": shares, "curves": kept})

    def soundness(self) -> None:
        """What is measured of prompts at Clip Skip 1 to 12, beside what the judge sees in their pictures."""
        judge = load_judge(self.options.judge)
        for path in self.models:
            if self.has("soundness", path.stem):
                continue
            model = open_model(str(path))
            scenes = some_scenes("soundness", PROMPTS)
            asked = [(caption(scene, random.Random(f"soundness {n}")), BASE_SEED + n) for n, scene in enumerate(scenes)]
            right = np.array([judged_objects(model, judge, scenes, asked, skip) for skip in SKIPS]).T
            found = [measured(model, prompt, seed, reference=truth_of(path)) for prompt, seed in asked]
            values = {key: np.array([getattr(one, key) for one in found]) for key in SOUNDNESS}
            warned = np.array(
                [[one.broken_from is not None and skip >= one.broken_from for skip in SKIPS] for one in found]
            )
            said, curve = (
                {key: one.mean(0).round(3).tolist() for key, one in values.items()},
                right.mean(0).round(3).tolist(),
            )
            self.keep("soundness", path.stem, {
                "right": curve,
                "curves": said | {"warned": warned.mean(0).round(3).tolist()},
                "rank correlation": {key: correlation(one, curve) for key, one in said.items()},
                "chance that it is larger where the object is right": {
                    key: larger(one[right], one[~right]) for key, one in values.items()
                },
                "right where it warned": [int(right[warned].sum()), int(warned.sum())],
                "right where it did not": [int(right[~warned].sum()), int((~warned).sum())],
            })  # fmt: skip

    def pulls(self) -> None:
        """Whether the three LoRAs pull together more at higher Clip Skips, as the guide says."""
        model, library = open_model(str(self.options.model)), Library((self.options.loras,))
        names = ("ogre", "gnome", "blueprint")
        rows: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(PULLS):
            prompt = caption(sample_scene(random.Random(f"pulls {seed}"), split="heldout"), random.Random(seed))
            request = Request(
                prompt=f"ogre, gnome, blueprint, {prompt}", loras=tuple(LoraRef(name=n) for n in names), seed=seed
            )
            render_, extras = resolve(request, model.facts, library)
            question = Question(
                render=render_, extras=extras, skips=SKIPS, reference=BASE,
                lora_references={ref.hash: BASE for ref in render_.loras},
            )  # fmt: skip
            for pull in measure(model, question).pulls:
                if pull.in_conditioning is not None:
                    rows.setdefault(f"{pull.one} / {pull.other}", []).append(pull.cosine)
                    rows.setdefault(f"{pull.one} / {pull.other}, in the conditioning", []).append(pull.in_conditioning)
        for pair, cosines in rows.items():
            values = np.array(cosines)
            trend = np.array([correlation(list(row), list(SKIPS)) for row in values])
            self.keep("pulls", pair, {
                "cosine by Clip Skip": values.mean(0).round(3).tolist(),
                "standard error": (values.std(0, ddof=1) / len(values) ** 0.5).round(3).tolist(),
                "rank correlation with Clip Skip": round(float(trend.mean()), 2),
                    "its standard error": round(float(trend.std(ddof=1) / len(trend) ** 0.5), 2),
            })  # fmt: skip


def with_lora(model: Model, path: Path):  # type: ignore[no-untyped-def]  # a context manager of clipskip's
    """The model with this LoRA."""
    lora = load_lora(path)
    return model.with_loras((LoraRef(name=lora.name, hash=lora.hash),), Extras(loras={lora.hash: lora}))


def some_scenes(name: str, count: int) -> list[Scene]:
    """Held-out scenes of one object."""
    rng, scenes = random.Random(name), []
    while len(scenes) < count:
        scene = replace(sample_scene(rng, split="heldout"), quality=None)
        if len(scene.items) == 1:
            scenes.append(scene)
    return scenes


def judged_objects(
    model: Model, judge: Judge, scenes: list[Scene], asked: list[tuple[str, int]], skip: int
) -> list[bool]:
    """Whether the judge sees each scene's object in its picture at a Clip Skip: 20 steps of Euler a, guidance 7."""
    renders, library = [], Library(())
    for prompt, seed in asked:
        request = Request(prompt=prompt, seed=seed, steps=20, clip_skip=ClipSkip(skip))
        render_, extras = resolve(request, model.facts, library)
        renders.append(render_)
    pictures = {event.index: event.pixels for event in model.draw(renders, extras) if isinstance(event, Drawn)}
    seen = look(judge, small(np.stack([pictures[n] for n in range(len(asked))])))["things"]
    best = seen.softmax(-1)[:, :, :NOTHING].amax(dim=1).argmax(dim=-1)
    return [THINGS[int(thing)] == scene.items[0].name for thing, scene in zip(best, scenes, strict=True)]


def measured(model: Model, prompt: str, seed: int, *, reference: int) -> Prompted:
    """What is measured of a prompt without a LoRA."""
    render_, extras = resolve(Request(prompt=prompt, seed=seed), model.facts, Library(()))
    return measure(model, Question(render=render_, extras=extras, skips=SKIPS, reference=reference, lora_references={}))


def larger(ones: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """How often one of the first is larger than one of the others (the area under the ROC curve); 0.5 tells nothing."""
    pairs = ones[:, None] - others[None]
    return round(float((pairs > 0).mean() + (pairs == 0).mean() / 2), 3)


def prompted_mean(model: Model, library: Library, name: str, count: int = 8) -> dict[str, list[float]]:
    """Curves over Clip Skip 1 to 12, means over prompts that no other part has seen."""
    curves: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(count):
        rng = random.Random(f"uptake {name} {seed}")
        prompt = caption(sample_scene(rng, split=name), rng)
        request = Request(prompt=prompt, loras=(LoraRef(name=name),), seed=seed)
        render_, extras = resolve(request, model.facts, library)
        question = Question(
            render=render_, extras=extras, skips=SKIPS, reference=BASE,
            lora_references={ref.hash: BASE for ref in render_.loras},
        )  # fmt: skip
        said = measure(model, question)
        for lora in said.loras:
            for key in ("uptake", "whole", "by_text", "by_unet"):
                curves.setdefault(key, []).append(getattr(lora, key))
    return {key: np.mean(values, axis=0).round(4).tolist() for key, values in curves.items()}


def correlation(one: list[float], other: list[float]) -> float:
    """Spearman's: Pearson's of the ranks, ties sharing theirs."""
    ranks = [np.array([(np.array(x) < v).sum() + ((np.array(x) == v).sum() - 1) / 2 for v in x]) for x in (one, other)]
    return round(float(np.corrcoef(*ranks)[0, 1]), 3)


def main() -> None:
    """All parts, or those named."""
    parts = ("footprints", "differences", "pictures", "drawings", "uptake", "soundness", "pulls")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--loras", type=Path, required=True)
    parser.add_argument("--tunes", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=parts, default=list(parts))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    trials = Trials(options)
    for part in options.only:
        began = time.time()
        getattr(trials, part)()
        print(f"{part}: {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
