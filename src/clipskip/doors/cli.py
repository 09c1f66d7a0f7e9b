"""The command line: it parses, calls a room and shows the result. Heavy imports wait until a command needs them."""

from pathlib import Path
from typing import Annotated

import typer

from clipskip import __version__, heap
from clipskip.doors import options as o
from clipskip.doors.advise_command import advise
from clipskip.doors.draw_commands import generate, merge, sweep, table
from clipskip.doors.look_commands import dialect, encode, inspect, layers, prompt
from clipskip.doors.terminal import run, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Clip Skip for Stable Diffusion: draw, compare and measure what each value does to your prompt and LoRAs.",
)
for command in (sweep, merge, table, generate, encode, inspect, prompt, advise, layers):
    app.command()(command)
app.command(context_settings={"ignore_unknown_options": True})(dialect)


def main() -> None:
    """Run the `clipskip` command: errors that the user can put right are one line and exit code 2."""
    raise SystemExit(run(app))


@app.command()
def serve(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.", min=0, max=65535)] = 7861,
    token: Annotated[
        str | None,
        typer.Option(envvar="CLIPSKIP_TOKEN", help="Require this token from every client.", show_envvar=True),
    ] = None,
    auth: Annotated[
        str | None, typer.Option(help="Require user:password, like A1111's --api-auth.", envvar="CLIPSKIP_AUTH")
    ] = None,
    cors_allow_origins: Annotated[
        str | None,
        typer.Option(help="Origins of web pages that may call the API: http://localhost:3000,https://chat.example"),
    ] = None,
    clip: o.Clip = None,
    out: Annotated[Path | None, o.Out] = None,
    models_folder: o.Folders = None,
    follow_links_to: Annotated[
        list[Path] | None,
        typer.Option(help="Folder outside the model folders that links in them may point to. Repeatable."),
    ] = None,
    allow_fetch: Annotated[
        bool, typer.Option(help="Let clients fetch models from Civitai and Hugging Face by POST /v1/fetch.")
    ] = False,
    allow_pickle: o.Pickle = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
) -> None:
    """Serve the page for comparing Clip Skips, and the HTTP API."""
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
    """Fetch models from Civitai or Hugging Face, verify them, and file them by kind.

    With --settings, the model, LoRAs and embeddings are fetched that a settings text or picture names. Tokens are read
    from CIVITAI_API_TOKEN and HF_TOKEN.
    """
    from clipskip.doors.fetching import run_fetch

    request = o.read_settings(settings) if settings else None
    run_fetch(links or [], request, folders=models_folder or [], allow_pickle=allow_pickle)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        say(f"clipskip {__version__}")
        raise typer.Exit
