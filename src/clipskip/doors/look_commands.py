"""The commands that look without drawing: files, prompts, layers, and other tools' numbers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from clipskip.doors import options as o
from clipskip.doors.terminal import say
from clipskip.spec import Dialect, Family, Skip, conversion_table, layers_read, parse_columns, to_dialect, translate


def encode(
    prompt: Annotated[str, typer.Argument(help="The prompt, in A1111's language.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Safetensors file to write.")],
    clip_skip: o.Skips = "1-12",
    model: o.ModelName = None,
    encoder: o.Encoder = None,
    models_folder: o.Folders = None,
    allow_pickle: o.Pickle = False,
) -> None:
    """Write a prompt's conditioning at every Clip Skip to a file.

    The file has a tensor clip_skip_N [tokens, width] for each Clip Skip, all from one pass of the text encoder. For SDXL
    the two encoders are concatenated, and the pooled vector is a tensor of its own.
    """
    from clipskip.doors.looking import encode_to

    skips, folders = parse_columns(clip_skip), models_folder or []
    lines = encode_to(prompt, skips, model=model, encoder=encoder, out=out, folders=folders, allow_pickle=allow_pickle)
    say("\n".join([*lines, str(out.resolve())]))


def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint, LoRA or embedding.")],
    allow_pickle: o.Pickle = False,
    as_json: o.Json = False,
) -> None:
    """Show what a model file is.

    It prints the family, layers x width, hashes, data types, the Clip Skip of training and missing parts; for a LoRA also
    what it changes.
    """
    from clipskip.doors.looking import inspect_file

    say(inspect_file(file, allow_pickle=allow_pickle, as_json=as_json))


def prompt(
    text: Annotated[str, typer.Argument(help="The prompt, in A1111's language.")],
    steps: Annotated[int, typer.Option(help="Number of denoiser calls, by which prompt editing counts.")] = 20,
    negative: Annotated[bool, typer.Option("--negative", help="Read the text as a negative prompt.")] = False,
    clip_skip: Annotated[
        str | None, typer.Option("--clip-skip", help="Also show which layer each step reads: [1:2:0.5].")
    ] = None,
    tool: Annotated[str, typer.Option("--as", help="Tool whose rules apply: a1111 or comfyui.")] = "a1111",
    models_folder: o.Folders = None,
    allow_pickle: o.Pickle = False,
    as_json: o.Json = False,
) -> None:
    """Show how a prompt is read.

    It prints tokens, chunks, weights and LoRAs, what is cut or unknown, what changes at which step, and which of your
    LoRAs and embeddings the prompt uses.
    """
    from clipskip.doors.prompt_command import read_aloud

    folders = models_folder or []
    text_read = read_aloud(
        text, steps=steps, negative=negative, clip_skip=clip_skip, as_json=as_json, folders=folders, allow_pickle=allow_pickle, tool=tool
    )  # fmt: skip
    say(text_read)


def layers(
    prompt: Annotated[str, typer.Argument(help="The prompt, in A1111's language.")],
    *,
    model: o.ModelName = None,
    encoder: o.Encoder = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="SVG file to draw a plot into.")] = None,
    models_folder: o.Folders = None,
    allow_pickle: o.Pickle = False,
    as_json: o.Json = False,
) -> None:
    """Show what each layer makes of a prompt.

    It prints how similar the Clip Skips are, how much each word has taken in from the others, and which words of the
    vocabulary each is nearest to.
    """
    from clipskip.doors.looking import tell_layers

    folders = models_folder or []
    text = tell_layers(
        prompt, model=model, encoder=encoder, out=out, folders=folders, allow_pickle=allow_pickle, as_json=as_json
    )
    say(text)


def dialect(
    number: Annotated[str, typer.Argument(help="The tool's number: 2, -2 for ComfyUI, 2/5 for two encoders.")],
    source: Annotated[str, typer.Option("--from", help="Tool that the number is from.")] = "clipskip",
    target: Annotated[
        str | None, typer.Option("--to", help="Tool to translate the number for; by default all tools.")
    ] = None,
    family: Annotated[str, typer.Option(help="Family of the model: sd1, sd2 or sdxl.")] = "sd1",
    steps: Annotated[
        int | None,
        typer.Option(help="Number of denoiser calls, to write a schedule step by step.", min=1, max=300),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Translate a Clip Skip into another tool's numbers."""
    kind = Family.parse(family)
    translation = translate(number, Dialect.parse(source), family=kind)
    target_number = (
        None if target is None else to_dialect(translation.skip, Dialect.parse(target), family=kind, calls=steps)
    )
    if translation.remark:
        say(f"note: {translation.remark}", error=True)
    if target_number is not None:
        say(target_number)
        return
    rows = conversion_table(translation.skip, family=kind, calls=steps)
    if as_json:
        fields = [{"tool": row.dialect.value, "number": row.number, "note": row.note} for row in rows]
        say(json.dumps(fields, indent=2))
        return
    say(f"Clip Skip {translation.skip} on {kind.label}: {_layers_in_words(translation.skip, kind)}")
    for row in rows:
        say(f"  {row.dialect.value:<20} {row.number:>4}  {row.note}".rstrip())


def _layers_in_words(skip: Skip, family: Family) -> str:
    """Return which layer each encoder is read at: "layer 11 of 12", with the encoder's name where there are two."""
    several = len(family.value.encoders) > 1
    return ", ".join(
        f"layer {layer:g} of {depth}{f' of {name}' if several else ''}"
        for name, depth, layer in layers_read(skip, family=family)
    )
