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
            help="The prompt. Without one, the answer is only what the model and LoRAs were trained at. Files here are further "
            "LoRAs, as a shell expands --lora out/epoch-*.safetensors."
        ),
    ] = None,
    *,
    negative: o.Negative = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            help="LoRA as name, name:0.8 or name:text_encoder:unet. Repeatable. Epochs of one LoRA, given as files, a pattern or a "
            "folder, are compared.",
        ),
    ] = None,
    trainer_config: Annotated[
        Path | None,
        typer.Option(
            help="Config of kohya or OneTrainer that the LoRA was trained with; configs beside the LoRA are found."
        ),
    ] = None,
    settings: o.Settings = None,
    model: o.ModelName = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures with captions (x.png beside x.txt), which give the most certain answer."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Checkpoint that the model was made from, to compare the two.")
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            help="Also draw the prompt at each Clip Skip and score it with this CLIP model: a folder, or a name on Hugging Face."
        ),
    ] = None,
    clip_skip: Annotated[str, typer.Option("--clip-skip", help="Clip Skips to compare: 1-6, 1-12 or 1,2.")] = "1-6",
    tool: Annotated[str, typer.Option("--for", help="Tool whose numbering the answer uses.")] = "a1111",
    seed: o.Seed = None,
    prediction: o.Prediction = None,
    models_folder: o.Folders = None,
    remember: Annotated[
        bool,
        typer.Option(
            "--remember", help="Keep the answer beside the checkpoint, for later pictures without a Clip Skip."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="When epochs are compared: SVG file to draw a plot into.")
    ] = None,
    fetch: o.Fetch = False,
    allow_pickle: o.Pickle = False,
    as_json: o.Json = False,
) -> None:
    """Recommend a Clip Skip, with the reasons and how sure they are.

    The answer comes from what the files say and from measurements: what the model and LoRAs were trained at, how much of
    the guidance and of each LoRA is left at each Clip Skip, where the picture falls apart, and which phrases the model
    reacts to. For a LoRA's epochs it says what each adds, what it changes besides, and which to use.
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
