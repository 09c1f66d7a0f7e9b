"""Draws and advises on the CPU and on the far device; prints by how much they differ, as JSON. A process of its own."""

import contextlib
import copy
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from far_device import FAR, FarDevice
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from clipskip.advise import Wanted, advise, read_layers
from clipskip.image import hash_pixels
from clipskip.spec import LoraRef, PhraseSkip, Request, Start, parse_skip
from clipskip.sweep import Drawn, Model, find_model, resolve
from clipskip.weights import Library, load_checkpoint

CPU = torch.device("cpu")
Pixels = NDArray[np.uint8]
SMALL = Request(
    prompt="a (red:1.2) frog, swamp AND a [blue:green:0.5] cat <lora:ogre:0.8> <lora:gnome:0.5>", negative_prompt="blurry",
    steps=3, seed=1, width=64, height=64,
)  # fmt: skip


class Event:
    """In the place of torch.cuda.Event: everything is there at once."""

    def record(self, stream: object) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


def opened(device: torch.device, dtype: torch.dtype = torch.float32) -> Model:
    path = find_model(None, hash=None, library=Library.of_user())
    return Model(
        load_checkpoint(path, dtype=dtype, text_dtype=torch.float32, device=device), device=device, dtype=dtype
    )


def drawn(model: Model, library: Library, request: Request, *skips: str, start: Pixels | None = None) -> list[Pixels]:
    """One picture for each Clip Skip, and one without LoRAs."""
    renders = []
    for skip in skips:
        render, extras = resolve(dataclasses.replace(request, clip_skip=parse_skip(skip)), model.facts, library)
        if start is not None:
            render = dataclasses.replace(render, start=Start(hash=hash_pixels(start), strength=0.6))
            extras = dataclasses.replace(extras, starts={hash_pixels(start): start})
        renders.append(render)
    renders.append(dataclasses.replace(renders[0], loras=()))
    events = model.draw(renders, extras, previews=True)
    found = {event.index: event.pixels for event in events if isinstance(event, Drawn)}
    return [found[i] for i in range(len(renders))]


def pictures(device: torch.device) -> dict[str, list[Pixels]]:
    """What can be asked for of a picture."""
    model, plain = opened(device), Library.of_user()
    found = {"from noise": drawn(model, plain, dataclasses.replace(SMALL, sampler="DPM++ 2M SDE"), "1", "2.5")}
    whole = dataclasses.replace(
        SMALL, prompt="a frog, swamp, (word:1.1) BREAK red owl", negative_prompt="word", variation_strength=0.2,
        negative_clip_skip=parse_skip("3"), phrase_skips=(PhraseSkip(phrase="swamp", skip=parse_skip("4")),),
    )  # fmt: skip
    start = np.random.default_rng(0).integers(0, 255, (100, 90, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        vectors = torch.randn(3, 128, generator=torch.Generator().manual_seed(0)) * 0.1
        save_file({"emb_params": vectors}, Path(folder) / "word.safetensors")
        found["from a picture"] = drawn(model, Library.of_user([Path(folder)]), whole, "[1:2.5:0.5]", start=start)
    half = opened(device, torch.float16)
    return found | {"in half precision": drawn(half, plain, dataclasses.replace(SMALL, steps=2), "2")}


def advice(device: torch.device) -> dict[str, list[float]]:
    """Chances, and how much is left of guidance and LoRAs."""
    model, library = opened(device), Library.of_user()
    asked = dataclasses.replace(SMALL, prompt="swamp, ogre", loras=(LoraRef(name="ogre"),))
    about = advise(model, Wanted(request=asked, skips=(1, 12)), library)
    assert about.prompted is not None
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for name in "abc":
            Image.fromarray(rng.integers(0, 255, (90, 200, 3), dtype=np.uint8)).save(Path(folder) / f"{name}.png")
            (Path(folder) / f"{name}.txt").write_text("a frog, swamp")
        seen = advise(model, Wanted(request=Request(prompt=""), skips=(2,), images=Path(folder)), library)
    return {
        "chances": [chance for _, chances in about.lora_chances for _, chance in chances],
        "kept": [*about.prompted.guidance_kept, *(left for one in about.prompted.loras for left in one.uptake)],
        "sound": [*about.prompted.conditioning_distance, *about.prompted.change, *about.prompted.contrast],
        "pictures": [chance for _, chance in seen.model_chances],
        "layers": [cosine for row in read_layers(model.reader, "a red frog", common=500).likeness for cosine in row],
    }


def merges() -> Iterator[float]:
    """The largest difference of each kind of LoRA, merged into weights of both."""
    sys.path.insert(0, str(Path(__file__).parent / "weights"))
    from lora_cases import CASES
    from lora_tools import kohya, module_of, tiny_models, weight_of, write

    from clipskip.weights.lora import load_lora, merged

    models = tiny_models()
    far = {part: copy.deepcopy(model) for part, model in models.items()}
    with FarDevice():
        for module in (one for model in far.values() for one in model.modules()):
            for name, value in module._parameters.items():
                if value is not None:
                    module._parameters[name] = nn.Parameter(value.data.to(FAR), requires_grad=False)
    for case in CASES:
        base = weight_of(models, case.target)
        parts, _ = case.make(module_of(models, case.target), base.double())
        head = kohya(case.target) if case.layout == "kohya" else case.target
        with tempfile.TemporaryDirectory() as folder:
            file = write(Path(folder) / "case.safetensors", {f"{head}.{end}": value for end, value in parts.items()})
            lora = load_lora(file)
        with merged(models, [(lora, 0.7, 0.7)]):
            near = weight_of(models, case.target).clone()
        with FarDevice(), merged(far, [(lora, 0.7, 0.7)]):
            found = weight_of(far, case.target).cpu()
        assert not near.equal(base)
        yield float((near - found).abs().max())


def both(ask: Callable[[torch.device], dict[str, list[Pixels]] | dict[str, list[float]]]) -> dict[str, float]:
    """The largest difference by name."""
    near = ask(CPU)
    with FarDevice():
        far = ask(FAR)
    return {name: float(np.abs(np.asarray(near[name], float) - np.asarray(far[name], float)).max()) for name in near}


def main() -> None:
    torch.cuda.Event = Event  # type: ignore[assignment,misc]
    torch.cuda.current_stream = lambda device=None: None  # type: ignore[assignment,return-value]
    torch.autocast = lambda *_, **__: contextlib.nullcontext()  # type: ignore[assignment,misc]
    asked = sys.argv[1]
    if asked == "merges":
        print(json.dumps({"merges": max(merges())}))
    else:
        print(json.dumps(both({"pictures": pictures, "advice": advice}[asked])))


if __name__ == "__main__":
    main()
