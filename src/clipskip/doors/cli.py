"""The command line: it parses, calls a room and shows the result. Heavy imports wait until a command needs them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from clipskip import __version__, heap
from clipskip.doors import options as o
from clipskip.doors.rows import with_settings
from clipskip.doors.terminal import EXIT_INTERRUPTED, run, say
from clipskip.errors import SpecError
from clipskip.spec import (
    Dialect,
    Family,
    Request,
    conversion_table,
    layers_read,
    parse_columns,
    parse_link,
    parse_skips,
    to_dialect,
    translate,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Clip Skip for Stable Diffusion: draw, compare and measure what each value does to your prompt and LoRAs.",
)

Columns = Annotated[
    str,
    typer.Option(
        "--clip-skip",
        help="The columns: 1-5, 1,2,4, 1-3:0.5, 1-11 (+2), 1-5 [3] or 1,[1:2:0.5],2. 1 is the last layer.",
    ),
]
Skips = Annotated[
    str,
    typer.Option("--clip-skip", help="The layers: 1-12, 1,2,4, 1-3:0.5, 1-11 (+2) or 1-5 [3]. 1 is the last layer."),
]
Skip = Annotated[
    str | None,
    typer.Option(
        "--clip-skip", help="1 is the last layer, [1:2:0.5] changes half-way; the model's own when not given."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the `clipskip` command: errors that the user can put right are one line and exit code 2."""
    raise SystemExit(run(app))


@app.command()
@with_settings
def sweep(
    prompt: o.Prompt = None,
    *,
    clip_skip: Columns = "1-5",
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
        int | None, typer.Option("--seeds", help="Repeat each cell with this many seeds.", min=1, max=1000)
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(
            "--scores",
            help="What to measure in each cell when it is drawn: advise (guidance kept, LoRA uptake, breakage), clip, or the "
            "names of installed plug-ins, separated by commas.",
        ),
    ] = None,
    clip: o.Clip = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", help="Draw only share i/n of the cells (1/3), or auto: those that nobody has claimed."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", help="Draw on the Ray cluster at this address; local is this machine, auto a running cluster."
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
    request = _fetched(request, models_folder, fetch=fetch, allow_pickle=allow_pickle)
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


@app.command()
def merge(
    into: Annotated[Path, typer.Argument(help="The folder to make.")],
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of the same sweep, drawn as shards on several machines.")
    ],
) -> None:
    """Put the pictures of one sweep, drawn on several machines, into one folder with its grid and page."""
    from clipskip.doors.work import run_merge

    run_merge(into, folders)


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="A sweep's folder.")],
    format: Annotated[
        str | None, typer.Option("--format", help="csv or parquet; by default what the file's name says, else csv.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; CSV is printed when not given.")
    ] = None,
) -> None:
    """Write a sweep as a table: settings, scores and marks of every cell, one row each."""
    from clipskip.doors.tabling import write_table

    write_table(folder, format=format, out=out)


@app.command()
@with_settings
def generate(
    prompt: o.Prompt = None,
    *,
    clip_skip: Skip = None,
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
    count: Annotated[int, typer.Option(help="Number of pictures, with rising seeds.", min=1, max=1000)] = 1,
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
    request = _fetched(request, models_folder, fetch=fetch, allow_pickle=allow_pickle)
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


@app.command()
def encode(
    prompt: Annotated[str, typer.Argument(help="The text, in A1111's language.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The safetensors file to write.")],
    clip_skip: Columns = "1-12",
    model: o.ModelName = None,
    encoder: o.Encoder = None,
    models_folder: o.Folders = None,
    allow_pickle: o.Pickle = False,
) -> None:
    """Write a prompt's conditioning at every Clip Skip.

    One tensor clip_skip_N [tokens, width] for each Clip Skip, from one pass of the text encoder; SDXL's two encoders
    are concatenated, and its pooled vector is added.
    """
    from clipskip.doors.looking import encode_to

    skips, folders = parse_columns(clip_skip), models_folder or []
    lines = encode_to(prompt, skips, model=model, encoder=encoder, out=out, folders=folders, allow_pickle=allow_pickle)
    say("\n".join([*lines, str(out.resolve())]))


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint, LoRA or embedding.")],
    allow_pickle: o.Pickle = False,
    as_json: Json = False,
) -> None:
    """Show what a model file is.

    Family, layers x width, hashes, data types, Clip Skip of training, missing parts; for a LoRA also what it changes.
    """
    from clipskip.doors.looking import inspect_file

    say(inspect_file(file, allow_pickle=allow_pickle, as_json=as_json))


@app.command()
def prompt(
    text: Annotated[str, typer.Argument(help="The prompt, in A1111's language.")],
    steps: Annotated[int, typer.Option(help="Number of denoiser calls, which prompt editing counts.")] = 20,
    negative: Annotated[bool, typer.Option("--negative", help="Read it as a negative prompt.")] = False,
    clip_skip: Annotated[
        str | None, typer.Option("--clip-skip", help="Also show which steps read which layer: [1:2:0.5].")
    ] = None,
    tool: Annotated[str, typer.Option("--as", help="The tool whose rules apply: a1111 or comfyui.")] = "a1111",
    models_folder: o.Folders = None,
    allow_pickle: o.Pickle = False,
    as_json: Json = False,
) -> None:
    """Show how a prompt is read.

    Tokens, chunks, weights, LoRAs, what is cut or unknown, what changes at which step, and which of your LoRAs and
    embeddings it uses.
    """
    from clipskip.doors.reading import read_aloud

    folders = models_folder or []
    say(
        read_aloud(
            text,
            steps=steps,
            negative=negative,
            clip_skip=clip_skip,
            as_json=as_json,
            folders=folders,
            allow_pickle=allow_pickle,
            tool=tool,
        )
    )


@app.command()
def advise(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help="The prompt; without one only what model and LoRAs were trained at is asked. Files here are further LoRAs, as a "
            "shell puts them behind --lora out/epoch-*.safetensors."
        ),
    ] = None,
    *,
    negative: o.Negative = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            help="LoRA as name, name:0.8 or name:text_encoder:unet. Repeat for several. Epochs of one LoRA, as files, a pattern or a "
            "folder, are compared.",
        ),
    ] = None,
    trainer_config: Annotated[
        Path | None,
        typer.Option(
            help="kohya's or OneTrainer's config that the LoRA was trained with; those beside the LoRA are found."
        ),
    ] = None,
    settings: o.Settings = None,
    model: o.ModelName = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures with captions (x.png beside x.txt): the most certain measure."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The checkpoint that the model was made from, to see what was trained since.")
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            help="Also draw the prompt at each Clip Skip and score it by this CLIP model: a folder, or its name on a hub."
        ),
    ] = None,
    clip_skip: Annotated[str, typer.Option("--clip-skip", help="The layers to compare: 1-6, 1-12 or 1,2.")] = "1-6",
    tool: Annotated[str, typer.Option("--for", help="The tool whose numbers the answer is in.")] = "a1111",
    seed: o.Seed = None,
    prediction: o.Prediction = None,
    models_folder: o.Folders = None,
    remember: Annotated[
        bool,
        typer.Option(
            "--remember", help="Keep the answer beside the checkpoint: later pictures without a Clip Skip use it."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Of epochs: also draw them, the SVG file to write.")
    ] = None,
    fetch: o.Fetch = False,
    allow_pickle: o.Pickle = False,
    as_json: Json = False,
) -> None:
    """Recommend a Clip Skip, with the reasons and how sure they are.

    From what the files say and from measurements: what model and LoRAs were trained at, how much of the guidance and
    of each LoRA is left at each Clip Skip, from where the picture falls apart, which phrases the model reacts to. Of a
    LoRA's epochs: what each adds and what it changes besides, and which to use.
    """
    from clipskip.doors.advising import run_advise
    from clipskip.doors.epochs import epochs_among, run_epochs, split_words, spread

    text, files = split_words(prompt or [])
    loras, of_one = spread(lora or [], files, allow_pickle=allow_pickle)
    request = o.build_request(
        text if text or settings else "", settings=settings, loras=loras,
        negative_prompt=negative, model=model, seed=seed, prediction=prediction,
    )  # fmt: skip
    request = _fetched(request, models_folder, fetch=fetch, allow_pickle=allow_pickle)
    skips = parse_skips(clip_skip)
    epochs = epochs_among(request, models_folder or [], must=of_one, allow_pickle=allow_pickle)
    if epochs:
        if base or clip or remember:
            raise SpecError(
                "--base, --clip and --remember are not for a comparison of epochs; leave them away", field="lora"
            )
        say(
            run_epochs(
                request,
                epochs,
                skips,
                tool=tool,
                images=images,
                config=trainer_config,
                out=out,
                folders=models_folder or [],
                allow_pickle=allow_pickle,
                as_json=as_json,
            )
        )
        return
    if out is not None:
        raise SpecError("--out draws the epochs of a LoRA; give several of one with --lora", field="out")
    say(
        run_advise(
            request,
            skips,
            tool=tool,
            images=images,
            base=base,
            clip=clip,
            trainer_config=trainer_config,
            folders=models_folder or [],
            allow_pickle=allow_pickle,
            keep=remember,
            as_json=as_json,
        )
    )


@app.command()
def layers(
    prompt: Annotated[str, typer.Argument(help="The text, in A1111's language.")],
    *,
    model: o.ModelName = None,
    encoder: o.Encoder = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also draw it: the SVG file to write.")] = None,
    models_folder: o.Folders = None,
    allow_pickle: o.Pickle = False,
    as_json: Json = False,
) -> None:
    """Show what each layer makes of a prompt.

    How alike the Clip Skips are, how much each word has taken in from the others, and which words of the vocabulary it
    is nearest to.
    """
    from clipskip.doors.looking import tell_layers

    folders = models_folder or []
    text = tell_layers(
        prompt, model=model, encoder=encoder, out=out, folders=folders, allow_pickle=allow_pickle, as_json=as_json
    )
    say(text)


@app.command(context_settings={"ignore_unknown_options": True})
def dialect(
    number: Annotated[str, typer.Argument(help="The tool's number, as in 2, or -2 for ComfyUI; 2/5 for two encoders.")],
    source: Annotated[
        str, typer.Option("--from", help="The tool that the number is from; clipskip itself by default.")
    ] = "clipskip",
    target: Annotated[
        str | None, typer.Option("--to", help="The tool to translate it for; all tools by default.")
    ] = None,
    family: Annotated[str, typer.Option(help="sd1, sd2 or sdxl.")] = "sd1",
    steps: Annotated[
        int | None,
        typer.Option(help="Number of the picture's denoiser calls, to write a schedule step by step.", min=1, max=300),
    ] = None,
    as_json: Json = False,
) -> None:
    """Translate a Clip Skip into another tool's numbers."""
    kind = Family.parse(family)
    translation = translate(number, Dialect.parse(source), family=kind)
    translated = (
        None if target is None else to_dialect(translation.skip, Dialect.parse(target), family=kind, calls=steps)
    )
    if translation.remark:
        say(f"note: {translation.remark}", error=True)
    if translated is not None:
        say(translated)
        return
    rows = list(conversion_table(translation.skip, family=kind, calls=steps))
    if as_json:
        say(json.dumps([{"tool": r.dialect.value, "number": r.number, "note": r.note} for r in rows], indent=2))
        return
    layers = [
        f"layer {layer:g} of {depth}{f' of {name}' if len(kind.value.encoders) > 1 else ''}"
        for name, depth, layer in layers_read(translation.skip, family=kind)
    ]
    say(f"Clip Skip {translation.skip} on {kind.label}: {', '.join(layers)}")
    for row in rows:
        say(f"  {row.dialect.value:<20} {row.number:>4}  {row.note}".rstrip())


@app.command()
def serve(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes any free one.", min=0, max=65535)] = 7861,
    token: Annotated[
        str | None,
        typer.Option(envvar="CLIPSKIP_TOKEN", help="Require this token from every client.", show_envvar=True),
    ] = None,
    auth: Annotated[
        str | None, typer.Option(help="Require user:password, as A1111 with --api-auth.", envvar="CLIPSKIP_AUTH")
    ] = None,
    cors_allow_origins: Annotated[
        str | None,
        typer.Option(help="Origins of pages that may read the answers: http://localhost:3000,https://chat.example"),
    ] = None,
    clip: o.Clip = None,
    out: Annotated[Path | None, o.Out] = None,
    models_folder: o.Folders = None,
    follow_links_to: Annotated[
        list[Path] | None,
        typer.Option(help="Another folder that links in the model folders may lead to. Repeatable."),
    ] = None,
    allow_fetch: Annotated[
        bool, typer.Option(help="Let clients fetch models from Civitai and Hugging Face by POST /v1/fetch.")
    ] = False,
    allow_pickle: o.Pickle = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Open the page for comparing Clip Skips, and an HTTP API, on this machine."""
    heap.share()  # before anything starts a thread
    from clipskip.doors.serving import Place, run_server

    origins = tuple(part.strip() for part in (cors_allow_origins or "").split(",") if part.strip())
    place = Place(host=host, port=port, token=token, login=auth, origins=origins)
    run_server(
        place,
        out=out,
        folders=models_folder or [],
        links_to=follow_links_to or [],
        allow_fetch=allow_fetch,
        clip=clip,
        allow_pickle=allow_pickle,
        open_page=open_page,
    )


@app.command()
def fetch(
    links: Annotated[
        list[str] | None,
        typer.Argument(help="Civitai or Hugging Face links, AIRs, hashes, owner/repo[/file][@revision]."),
    ] = None,
    *,
    settings: o.Settings = None,
    models_folder: o.Folders = None,
    allow_pickle: o.Pickle = False,
) -> None:
    """Fetch models from Civitai and Hugging Face, verified, into the folder of their kind.

    With --settings also the model, LoRAs and embeddings that a settings text or picture names. Tokens are read from
    CIVITAI_API_TOKEN and HF_TOKEN.
    """
    from clipskip.doors.fetching import run_fetch

    request = o.read_settings(settings) if settings else None
    run_fetch(links or [], request, folders=models_folder or [], allow_pickle=allow_pickle)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        say(f"clipskip {__version__}")
        raise typer.Exit


def _fetched(request: Request, folders: list[Path] | None, *, fetch: bool, allow_pickle: bool) -> Request:
    """Return the request with the files of its links, and with `fetch` those of its names and hashes, fetched if need
    be."""
    if not fetch and not any(
        name and parse_link(name)
        for name in (request.model, request.refiner, request.vae, *(ref.name for ref in request.loras))
    ):
        return request
    from clipskip.doors.fetching import with_fetched

    return with_fetched(request, folders=folders or [], may_fetch=fetch, allow_pickle=allow_pickle)


def _finish(complete: bool) -> None:
    if not complete:
        raise typer.Exit(EXIT_INTERRUPTED)
