"""A check whether a UNet's answer to pure noise fits the prediction it is used with."""

import torch

from clipskip.networks import UNet

SIDE_CELLS = 16
LIMIT = 0.5
"""Half-way between the answers of the two kinds."""
LAST_TIMESTEP = 999.0


@torch.inference_mode()
def agreement_with_noise(unet: UNet) -> float:
    """Return the correlation of a UNet's answer to pure noise, at the highest level, with that noise.

    There alpha is 0.07: epsilon is nearly the input itself, so a UNet that predicts it comes near to 1, while
    v = alpha epsilon - sigma x0 is nearly the picture alone and comes near to 0. A1111 tells SD 2.x's two kinds apart by
    the same test (1.10, sd_models_config.py is_using_v_parameterization_for_sd2).
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
    """Return a warning where a UNet's answer to noise does not fit this prediction, else None."""
    if unet.shape.added_width:
        return None
    agreement = agreement_with_noise(unet)
    if (agreement > LIMIT) == (prediction == "epsilon"):
        return None
    other = "v" if prediction == "epsilon" else "epsilon"
    return (
        f"{name} is drawn as a model that predicts {prediction}, but its first step looks like that of one that predicts "
        f"{other} (its answer to pure noise correlates with the noise by {agreement:.2f}; epsilon gives nearly 1, v nearly 0): "
        f"if pictures come out brown or as noise, use the prediction {other} (--prediction {other})"
    )
