"""OpenVINO: the UNet converted from diffusers' torch module at its one shape; diffusers' scheduler. The worker's name ends
in the dtype that it computes in, or in "convert"."""

import sys
import time
from itertools import pairwise
from pathlib import Path

import openvino as ov
import torch
from common import CFG, STEPS, Task, parse_task
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from openvino.frontend.pytorch import patch_model
from torch import Tensor, nn

HINTS = {"bfloat16": "bf16", "float32": "f32"}


class Bare(nn.Module):
    """The UNet with tensors in and out; SDXL's also takes the pooled vectors and the sizes."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, x: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor | None = None, sizes: Tensor | None = None
    ) -> Tensor:
        beside = None if pooled is None else {"text_embeds": pooled, "time_ids": sizes}
        return self.unet(x, timestep, encoder_hidden_states=text, added_cond_kwargs=beside, return_dict=False)[0]


def constants(task: Task, given: dict[str, Tensor]) -> list[Tensor]:
    """What is the same at every step, the negative prompt's first: the texts, on SDXL the pooled vectors and the sizes."""
    texts = torch.cat([given["negative"], given["positive"]])
    if "pooled" not in given:
        return [texts]
    side = float(task.size_px)
    pooled = torch.cat([given["negative_pooled"], given["pooled"]])
    return [texts, pooled, torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(2, 1)]


def convert(task: Task) -> Path:
    """The UNet as OpenVINO's files, made once: its numbers in float16, as in the checkpoint."""
    path = task.folder / f"openvino-{task.size_px}.xml"
    if not path.exists():
        given = task.inputs()
        loaded = UNet2DConditionModel.from_pretrained(
            task.diffusers_folder, subfolder="unet", torch_dtype=torch.float16
        )
        unet = Bare(loaded.eval())
        patch_model.__make_16bit_traceable(unet)  # in float32 SDXL's conversion takes more than 24 GB
        example = (given["noise"].repeat(2, 1, 1, 1), torch.tensor(1.0), *constants(task, given))
        with torch.no_grad():
            model = ov.convert_model(unet, example_input=example, input=[list(part.shape) for part in example])
        ov.save_model(model, path.with_suffix(".partial.xml"))
        path.with_suffix(".partial.bin").rename(path.with_suffix(".bin"))
        path.with_suffix(".partial.xml").rename(path)
    return path


def main() -> None:
    task = parse_task()
    path = convert(task)
    kind = task.name.rpartition("-")[2]
    if kind == "convert":
        return
    settings = {"INFERENCE_PRECISION_HINT": HINTS[kind], "PERFORMANCE_HINT": "LATENCY"}
    unet = ov.Core().compile_model(path, "CPU", settings)
    scheduler = EulerDiscreteScheduler.from_pretrained(
        task.diffusers_folder, subfolder="scheduler", timestep_spacing="linspace"
    )
    scheduler.set_timesteps(STEPS)
    given = task.inputs()
    same, latent = [part.numpy() for part in constants(task, given)], given["noise"] * scheduler.init_noise_sigma
    stamps = [time.perf_counter()]
    for timestep in scheduler.timesteps:
        both = scheduler.scale_model_input(latent.repeat(2, 1, 1, 1), timestep)
        out = torch.from_numpy(unet([both.numpy(), timestep.float().numpy(), *same])[0])
        without, given_text = out.chunk(2)
        latent = scheduler.step(without + CFG * (given_text - without), timestep, latent).prev_sample
        stamps.append(time.perf_counter())
    steps = [after - before for before, after in pairwise(stamps)]
    task.finish(steps[1:], latent, openvino=ov.__version__)


if __name__ == "__main__":
    sys.exit(main())
