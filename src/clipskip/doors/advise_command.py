"""The advise command: which Clip Skip, and which epoch of a LoRA."""

from pathlib import Path
from typing import Annotated

import typer

from clipskip.doors import options as o
from clipskip.doors.terminal import say
from clipskip.spec import Dialect, parse_skips


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
    as_json: o.Json = False,
) -> None:
    """Recommend a Clip Skip, with the reasons and how sure they are.

    From what the files say and from measurements: what model and LoRAs were trained at, how much of the guidance and
    of each LoRA is left at each Clip Skip, from where the picture falls apart, which phrases the model reacts to. Of a
    LoRA's epochs: what each adds and what it changes besides, and which to use.
    """
    from clipskip.doors.advising import AdviseOptions, run_advise
    from clipskip.doors.epochs_command import epochs_among, run_epochs, split_words, spread

    text, files = split_words(prompt or [])
    loras, of_one_training = spread(lora or [], files, allow_pickle=allow_pickle)
    request = o.build_request(
        text if text or settings else "", settings=settings, loras=loras, negative_prompt=negative, model=model,
        seed=seed, prediction=prediction,
    )  # fmt: skip
    options = AdviseOptions(
        request=o.with_links_fetched(request, models_folder, fetch=fetch, allow_pickle=allow_pickle),
        skips=parse_skips(clip_skip),
        dialect=Dialect.parse(tool),
        images=images,
        base=base,
        clip=clip,
        trainer_config=trainer_config,
        keep=remember,
        plot=out,
        folders=tuple(models_folder or ()),
        allow_pickle=allow_pickle,
        as_json=as_json,
    )
    epochs = epochs_among(options, must=of_one_training)
    say(run_epochs(options, epochs) if epochs else run_advise(options))
