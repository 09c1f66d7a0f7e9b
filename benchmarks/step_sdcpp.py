"""stable-diffusion.cpp through its PyPI package, one step once; its noise and schedule are its own, so no latents."""

import json
import time

from common import CFG, NEGATIVE, PROMPT, SEED, parse_task
from stable_diffusion_cpp import StableDiffusion


def main() -> None:
    task = parse_task()
    model = StableDiffusion(model_path=str(task.checkpoint), wtype="default")
    start = time.perf_counter()
    model.generate_image(
        prompt=PROMPT, negative_prompt=NEGATIVE, cfg_scale=CFG, seed=SEED, sample_steps=1,
        width=task.size_px, height=task.size_px,
    )  # fmt: skip
    print("RESULT " + json.dumps({"steps_s": [time.perf_counter() - start], "with_text_and_decoding": True}))


if __name__ == "__main__":
    main()
