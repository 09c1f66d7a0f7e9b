"""OpenVINO in bfloat16: the UNet converted from diffusers' torch module at its one shape; diffusers' scheduler."""

import sys
import time
from itertools import pairwise
from pathlib import Path

import openvino as ov
import torch
from common import CFG, STEPS, Task, parse_task
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor, nn


class Bare(nn.Module):
    """The UNet with tensors in and out."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return self.unet(x, timestep, encoder_hidden_states=text, return_dict=False)[0]


def convert(task: Task) -> Path:
    """The UNet as OpenVINO's files, made once: its numbers in float16, as in the checkpoint."""
    path = task.folder / f"openvino-{task.size_px}.xml"
    if not path.exists():
        given = task.inputs()
        unet = Bare(UNet2DConditionModel.from_pretrained(task.diffusers_folder, subfolder="unet").eval())
        example = (
            given["noise"].repeat(2, 1, 1, 1),
            torch.tensor(1.0),
            torch.cat([given["negative"], given["positive"]]),
        )
        with torch.no_grad():
            model = ov.convert_model(unet, example_input=example, input=[list(part.shape) for part in example])
        ov.save_model(model, path.with_suffix(".partial.xml"))
        path.with_suffix(".partial.bin").rename(path.with_suffix(".bin"))
        path.with_suffix(".partial.xml").rename(path)
    return path


def main() -> None:
    task = parse_task()
    path = convert(task)
    if task.name == "openvino-convert":
        return
    unet = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"})
    scheduler = EulerDiscreteScheduler.from_pretrained(
        task.diffusers_folder, subfolder="scheduler", timestep_spacing="linspace"
    )
    scheduler.set_timesteps(STEPS)
    given = task.inputs()
    text, latent = torch.cat([given["negative"], given["positive"]]), given["noise"] * scheduler.init_noise_sigma
    stamps = [time.perf_counter()]
    for timestep in scheduler.timesteps:
        both = scheduler.scale_model_input(latent.repeat(2, 1, 1, 1), timestep)
        out = torch.from_numpy(unet([both.numpy(), timestep.float().numpy(), text.numpy()])[0])
        without, given_text = out.chunk(2)
        latent = scheduler.step(without + CFG * (given_text - without), timestep, latent).prev_sample
        stamps.append(time.perf_counter())
    steps = [after - before for before, after in pairwise(stamps)]
    task.finish(steps[1:], latent, openvino=ov.__version__)


if __name__ == "__main__":
    sys.exit(main())
