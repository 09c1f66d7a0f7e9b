"""Whether a UNet answers pure noise as one that predicts what it is taken to predict."""

import torch

from clipskip.networks import UNet

SIDE_CELLS = 16
LIMIT = 0.5
"""Half-way between what the two kinds answer."""
LAST_TIMESTEP = 999.0


@torch.inference_mode()
def agreement_with_noise(unet: UNet) -> float:
    """The correlation of a UNet's answer to pure noise, at the highest level, with that noise.

    There alpha is 0.07: epsilon is nearly the input itself, so a UNet that predicts it comes near to 1, while
    v = alpha epsilon - sigma x0 is nearly the picture alone and comes near to 0. A1111 tells SD 2.x's two kinds apart by
    the same two answers (1.10, sd_models_config.py is_using_v_parameterization_for_sd2).
    """
    shape = unet.shape
    size = (1, shape.in_channels, SIDE_CELLS, SIDE_CELLS)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0))
    text = torch.zeros(1, 77, shape.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    time = torch.tensor([LAST_TIMESTEP], device=unet.device)
    answer = unet(noise.to(unet.device, unet.dtype), time, text).float().cpu()
    pair = torch.stack([answer[:, : shape.out_channels].flatten(), noise[:, : shape.out_channels].flatten()])
    return float(torch.corrcoef(pair)[0, 1])


def prediction_doubt(unet: UNet, *, prediction: str, name: str) -> str | None:
    """A warning where a UNet does not answer noise as one of this prediction does, or None."""
    if unet.shape.added_width:
        return None
    agreement = agreement_with_noise(unet)
    if (agreement > LIMIT) == (prediction == "epsilon"):
        return None
    other = "v" if prediction == "epsilon" else "epsilon"
    return (
        f"{name} is drawn as a model that predicts {prediction}, and its first step looks like one that predicts {other} "
        f"(its answer to noise agrees with the noise by {agreement:.2f}; epsilon has nearly 1, v nearly 0): "
        f"if pictures come out brown or as noise, ask for the prediction {other} (--prediction {other})"
    )
