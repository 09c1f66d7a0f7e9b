"""Latents to pixels, PNG files with their settings, labelled grids and pages; and the settings of any picture back."""

from clipskip.image.canvas import LATENT_RESIZE, Canvas, prepare
from clipskip.image.enlarge import (
    LATENT_MODES,
    UPSCALERS,
    Upscaler,
    blend,
    crop_middle,
    enlarge,
    enlarge_latent,
    stretch,
    upscale_by,
    upscale_with,
)
from clipskip.image.grid import CELL_PX, animation, draw_grid
from clipskip.image.initial import hash_pixels, read_mask, read_opacity, read_pixels
from clipskip.image.metadata import (
    PictureFormat,
    infotext_of,
    infotexts_of,
    picture_bytes,
    picture_infotext,
    png_bytes,
    read_infotext,
    write_bytes,
    write_png,
)
from clipskip.image.page import PageCell, viewer_markup, write_page
from clipskip.image.preview import Colours, preview, preview_colours
from clipskip.image.tiles import Enlarge, enlarge_by_tiles
from clipskip.image.vae import decode, decode_on_device, encode, encode_exact, picture_px

__all__ = [
    "CELL_PX",
    "LATENT_MODES",
    "LATENT_RESIZE",
    "UPSCALERS",
    "Canvas",
    "Colours",
    "Enlarge",
    "PageCell",
    "PictureFormat",
    "Upscaler",
    "animation",
    "blend",
    "crop_middle",
    "decode",
    "decode_on_device",
    "draw_grid",
    "encode",
    "encode_exact",
    "enlarge",
    "enlarge_by_tiles",
    "enlarge_latent",
    "hash_pixels",
    "infotext_of",
    "infotexts_of",
    "picture_bytes",
    "picture_infotext",
    "picture_px",
    "png_bytes",
    "prepare",
    "preview",
    "preview_colours",
    "read_infotext",
    "read_mask",
    "read_opacity",
    "read_pixels",
    "stretch",
    "upscale_by",
    "upscale_with",
    "viewer_markup",
    "write_bytes",
    "write_page",
    "write_png",
]
