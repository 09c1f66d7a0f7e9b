"""The commands that draw: a sweep, pictures at one Clip Skip, and what comes of a sweep's folder."""

from pathlib import Path
from typing import Annotated

import typer

from clipskip.doors import options as o
from clipskip.doors.rows import with_settings
from clipskip.doors.terminal import EXIT_INTERRUPTED
from clipskip.errors import SpecError
from clipskip.spec import parse_columns


@with_settings
def sweep(
    prompt: o.Prompt = None,
    *,
    clip_skip: o.Columns = "1-5",
    negative: o.Negative = None,
    lora: o.Loras = None,
    settings: o.Settings = None,
    model: o.ModelName = None,
    refiner: o.RefinerName = None,
    vae: o.VaeName = None,
    negative_clip_skip: o.NegativeSkip = None,
    phrase_skip: o.PhraseSkips = None,
    init: o.Init = None,
    mask: o.MaskFile = None,
    typed: o.Typed,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            help="Another setting to vary, as name=values: seed=1-4, cfg=3,5,7, lora-weight=0.2..1.0. Repeatable.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Repeat each cell with this many seeds, counting up.", min=1, max=1000)
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(
            "--scores",
            help="What to measure in each drawn cell: advise (guidance kept, LoRA uptake, breakage), clip, or the "
            "names of installed plug-ins, separated by commas.",
        ),
    ] = None,
    clip: o.Clip = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            help="Draw only share i/n of the cells (1/3); auto draws cells that no other machine has claimed.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            help="Draw on the Ray cluster at this address; local, or no address, starts one on this machine, auto finds a running one.",
        ),
    ] = None,
    out: Annotated[Path | None, o.Out] = None,
    models_folder: o.Folders = None,
    fetch: o.Fetch = False,
    allow_pickle: o.Pickle = False,
    yes: o.Yes = False,
) -> None:
    """Draw the grid: Clip Skip across, without and with the LoRAs down."""
    from clipskip.doors.measuring import build_scoring
    from clipskip.doors.work import run_on_ray, run_sweep
    from clipskip.sweep import Shard

    skips = parse_columns(clip_skip)
    given = o.read_given(init, mask)
    request = o.build_request(
        prompt, settings=settings, given=given, loras=lora, phrase_skips=phrase_skip, negative_prompt=negative, model=model, vae=vae,
        refiner=refiner, negative_clip_skip=negative_clip_skip, typed=typed,
    )  # fmt: skip
    request = o.with_links_fetched(request, models_folder, fetch=fetch, allow_pickle=allow_pickle)
    axes = o.build_axes(axis, seeds, seed=request.seed)
    scoring = build_scoring(scores, clip)
    if ray is not None:
        if shard:
            raise SpecError("--ray distributes cells by itself; leave --shard out", field="ray")
        drawn = run_on_ray(
            request,
            skips,
            address=ray,
            folders=models_folder or [],
            allow_pickle=allow_pickle,
            out=out,
            pictures=given.pictures,
            axes=axes,
            scoring=scoring,
        )
        _finish(drawn)
        return
    drawn = run_sweep(
        request,
        skips,
        folders=models_folder or [],
        allow_pickle=allow_pickle,
        out=out,
        yes=yes,
        pictures=given.pictures,
        axes=axes,
        shard=Shard.parse(shard) if shard else Shard(),
        scoring=scoring,
    )
    _finish(drawn)


def merge(
    into: Annotated[Path, typer.Argument(help="Folder to create.")],
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of the same sweep, drawn as shards on several machines.")
    ],
) -> None:
    """Put the pictures of one sweep, drawn on several machines, into one folder with its grid and page."""
    from clipskip.doors.work import run_merge

    run_merge(into, folders)


def table(
    folder: Annotated[Path, typer.Argument(help="A sweep's folder.")],
    format: Annotated[
        str | None, typer.Option("--format", help="csv or parquet; by default the file name's ending, else csv.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; without it, CSV is printed.")] = None,
) -> None:
    """Write a sweep as a table: settings, scores and marks of every cell, one row each."""
    from clipskip.doors.tabling import write_table

    write_table(folder, format=format, out=out)


@with_settings
def generate(
    prompt: o.Prompt = None,
    *,
    clip_skip: o.Skip = None,
    negative: o.Negative = None,
    lora: o.Loras = None,
    settings: o.Settings = None,
    model: o.ModelName = None,
    refiner: o.RefinerName = None,
    vae: o.VaeName = None,
    negative_clip_skip: o.NegativeSkip = None,
    phrase_skip: o.PhraseSkips = None,
    init: o.Init = None,
    mask: o.MaskFile = None,
    typed: o.Typed,
    count: Annotated[int, typer.Option(help="Number of pictures, with seeds counting up.", min=1, max=1000)] = 1,
    out: Annotated[Path | None, o.Out] = None,
    models_folder: o.Folders = None,
    fetch: o.Fetch = False,
    allow_pickle: o.Pickle = False,
    yes: o.Yes = False,
) -> None:
    """Draw pictures at one Clip Skip."""
    from clipskip.doors.work import run_generate

    given = o.read_given(init, mask)
    request = o.build_request(
        prompt, settings=settings, given=given, loras=lora, phrase_skips=phrase_skip, negative_prompt=negative, model=model, vae=vae,
        refiner=refiner, negative_clip_skip=negative_clip_skip, clip_skip=clip_skip, typed=typed,
    )  # fmt: skip
    request = o.with_links_fetched(request, models_folder, fetch=fetch, allow_pickle=allow_pickle)
    _finish(
        run_generate(
            request,
            count,
            folders=models_folder or [],
            allow_pickle=allow_pickle,
            out=out,
            yes=yes,
            pictures=given.pictures,
        )
    )


def _finish(complete: bool) -> None:
    if not complete:
        raise typer.Exit(EXIT_INTERRUPTED)
