"""The steps from noise to latent, for a UNet, its conditioning and a render."""

from clipskip.sample.denoise import TOGETHER, Denoiser, Picture, Refiner, Step, sample, trained_levels
from clipskip.sample.memory import check_room, empty_cache, free_bytes, has_room, is_out_of_memory, kept_memory
from clipskip.sample.noise import PictureLatent, PictureNoise
from clipskip.sample.prediction_check import prediction_doubt
from clipskip.sample.samplers import AUTOMATIC, SAMPLERS, Sampler, find_sampler, find_schedule
from clipskip.sample.schedules import SCHEDULES
from clipskip.sample.sigmas import NoiseTable, stable_diffusion
from clipskip.sample.start import Begin, check_start

__all__ = [
    "AUTOMATIC",
    "SAMPLERS",
    "SCHEDULES",
    "TOGETHER",
    "Begin",
    "Denoiser",
    "NoiseTable",
    "Picture",
    "PictureLatent",
    "PictureNoise",
    "Refiner",
    "Sampler",
    "Step",
    "check_room",
    "check_start",
    "empty_cache",
    "find_sampler",
    "find_schedule",
    "free_bytes",
    "has_room",
    "is_out_of_memory",
    "kept_memory",
    "prediction_doubt",
    "sample",
    "stable_diffusion",
    "trained_levels",
]
