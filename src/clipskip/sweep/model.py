"""An open model: from settings to finished pictures."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from typing import final

import torch
from torch import Tensor, nn

from clipskip.encode import TextReader, condition_all
from clipskip.errors import DamagedFile, SpecError
from clipskip.image import (
    Colours,
    decode_on_device,
    preview,
    preview_colours,
)
from clipskip.networks import VAE, UNet, build_unet, build_vae
from clipskip.sample import (
    Begin,
    Picture,
    PictureLatent,
    Refiner,
    check_room,
    empty_cache,
    find_sampler,
    free_bytes,
    is_out_of_memory,
    kept_memory,
    prediction_doubt,
    sample,
)
from clipskip.spec import LoraRef, Render
from clipskip.sweep.batch import (
    Decoding,
    advance_of,
    drawn_of,
    drawn_together,
    finished,
    not_finite,
    pictures_at_once,
    sound_of,
)
from clipskip.sweep.begin import Openings
from clipskip.sweep.drawn import Advance, Drawn, Extras, Halt
from clipskip.sweep.encoders import Encoders, most_kept
from clipskip.sweep.open_files import OpenFiles
from clipskip.sweep.second import (
    Task,
    denoiser_calls,
    enlarged,
    second_follows,
    second_loras,
    second_tasks,
    second_text,
)
from clipskip.weights import (
    Checkpoint,
    CheckpointFacts,
    Embedding,
    hash_file,
    is_pickle,
    load_checkpoint,
    read_again,
)
from clipskip.weights.lora import UNET, Weighted, check_loras, is_merged, merge_for_good, merged

NumberedRender = tuple[tuple[int, ...], Render]
"""A render with its places among those asked for: the same picture is drawn once."""
Waiting = list[Task]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawing:
    """The state of one call of `draw`."""

    extras: Extras
    previews: bool
    halt: Halt
    decodings: list[Decoding] = field(default_factory=list)
    apart: list[Task] = field(default_factory=list)
    """Second passes with other LoRAs than the first."""


@final
class Model:
    """A checkpoint's three networks on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        dtype: torch.dtype,
        allow_pickle: bool = False,
        most_kept: int | None = None,
    ) -> None:
        self.facts = facts = checkpoint.facts
        self.device = device
        self.allow_pickle = allow_pickle
        """Whether it was opened with pickles allowed."""
        self._encoders = Encoders(checkpoint.text, facts, device=device, kept=most_kept)
        self.unet: UNet = build_unet(checkpoint.unet, facts.unet, dtype=dtype, device=device)
        self.vae: VAE = build_vae(checkpoint.vae, facts.vae)
        self._open = OpenFiles(self.vae, facts.vae, device=device)
        self._refiner: Model | None = None

    def refiner(self, facts: CheckpointFacts) -> "Model":
        """Return the model that finishes this one's pictures; it stays open for the next."""
        if self._refiner is None or self._refiner.facts != facts or not facts.source.unchanged:
            self._refiner = None
            dtype = self.unet.dtype
            checkpoint = load_checkpoint(
                facts.source.path,
                dtype=dtype,
                text_dtype=torch.float32,
                device=self.device,
                allow_pickle=is_pickle(facts.source.path),  # its facts were read, where that was allowed
                refiner=True,
                check_bytes=partial(check_room, self.device, what=facts.source.path.name),
            )
            self._refiner = Model(checkpoint, device=self.device, dtype=dtype)
        return self._refiner

    def _refined(self, batch: Waiting, size: int, extras: Extras) -> Refiner | None:
        """Return the refiner for these pictures, if they have one."""
        if extras.refiner is None or not batch[0].refined:
            return None
        model = self.refiner(extras.refiner)
        reader = replace(model.reader, embeddings=extras.embeddings)
        before = [second_text(task.render) for task in batch if task.steps_before]
        renders = [task.picture.render for task in batch]
        texts = condition_all(reader, renders, calls=denoiser_calls, second=before)
        conditionings = texts + [texts[-1]] * (len(self._filled(batch, size)) - len(batch))
        return Refiner(unet=model.unet, prediction=model.facts.prediction, conditionings=conditionings)

    @cached_property
    def doubt(self) -> str | None:
        """A warning where its first step does not fit the prediction that it is used with, or None."""
        return prediction_doubt(self.unet, prediction=self.facts.prediction, name=self.facts.ref.name)

    @cached_property
    def _colours(self) -> Colours:
        return preview_colours(self.vae)

    def draw(
        self, renders: Sequence[Render], extras: Extras, *, previews: bool = False, halt: Halt | None = None
    ) -> Iterator[Advance | Drawn]:
        """Draw the pictures, those with the same LoRAs in sequence, so that each set is merged once.

        A picture that is asked for twice is drawn once and yielded twice. Stop iterating to cancel: the weights are put
        back. With `previews` each step has a rough preview of each picture, whose colours a linear map estimates from
        the latent. On a `halt` the pictures at hand are yielded half done.
        """
        halt = halt or Halt()
        sets = list(dict.fromkeys(render.loras for render in renders))
        places: dict[Render, tuple[int, ...]] = {}
        for index, render in enumerate(renders):
            places[render] = (*places.get(render, ()), index)
        numbered = sorted(((at, render) for render, at in places.items()), key=lambda pair: sets.index(pair[1].loras))
        with kept_memory(self.device):
            for loras, group in groupby(numbered, key=lambda pair: pair[1].loras):
                alike, drawing = list(group), Drawing(extras=extras, previews=previews, halt=halt)
                yield from self._draw_alike(loras, partial(self._first, alike, extras=extras), drawing)
                for second_pass_loras, tasks in groupby(drawing.apart, key=lambda task: second_loras(task.render)):
                    yield from self._draw_alike(second_pass_loras, partial(second_tasks, list(tasks)), drawing)

    @property
    def reader(self) -> TextReader:
        """Its text encoders and how they are read; large ones are freed while pictures are drawn."""
        return self._encoders.reader

    def free_encoders(self) -> None:
        """Free the text encoders where they are large; they are read from the file again for the next text."""
        self._encoders.free()

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that LoRAs change, by the names in LoRAs."""
        return {**self.reader.networks, "unet": self.unet}

    @property
    def is_spoiled(self) -> bool:
        """Return whether, between pictures, its weights differ from its file's because a LoRA could not be taken out."""
        return is_merged(self.unet)

    def originals(self, names: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield weights as in its file, by their full names."""
        changed = {name.partition(".")[0] for name in names}
        networks = {UNET: self.unet} if changed == {UNET} else self.networks  # which would read freed encoders again
        dtypes = {part: next(networks[part].parameters()).dtype for part in changed}
        return read_again(self.facts.source, names, dtypes=dtypes)

    @contextmanager
    def with_loras(self, refs: Sequence[LoraRef], extras: Extras) -> Iterator[TextReader]:
        """Merge these LoRAs into the weights while the `with` block lasts, and yield the reader of texts."""
        with self._merged(self.networks, refs, extras):
            yield self._reader_with(refs, extras)

    @contextmanager
    def _drawing_with(
        self, refs: Sequence[LoraRef], extras: Extras, read: Callable[[TextReader], Waiting]
    ) -> Iterator[Waiting]:
        """Yield what `read` makes of the texts, with the LoRAs in the UNet while the `with` block lasts.

        Encoders that give way have the LoRAs only while they read, and are not put back: the next set of LoRAs finds them
        read from the file again.
        """
        if not self._encoders.give_way:
            with self.with_loras(refs, extras) as reader:
                yield read(reader)
            return
        weighted = _weighted(refs, extras)
        check_loras(self.networks, weighted)
        try:
            merge_for_good(self.reader.networks, weighted)
            waiting = read(self._reader_with(refs, extras))
        finally:
            self.free_encoders()
        with self._merged({UNET: self.unet}, refs, extras):
            yield waiting

    def _merged(
        self, networks: Mapping[str, nn.Module], refs: Sequence[LoraRef], extras: Extras
    ) -> AbstractContextManager[None]:
        originals = None if not refs or is_pickle(self.facts.source.path) else self.originals
        return merged(networks, _weighted(refs, extras), originals=originals, most_kept=most_kept(self.device))

    def _reader_with(self, refs: Sequence[LoraRef], extras: Extras) -> TextReader:
        """Return the reader of texts that know the given embeddings and those in the LoRAs."""
        bundled = tuple(
            Embedding(name=name, vectors=vectors, hash=lora.hash)
            for lora, _, _ in _weighted(refs, extras)
            for name, vectors in lora.embeddings.items()
        )
        return replace(self.reader, embeddings=extras.embeddings + bundled)

    def _first(self, numbered: Sequence[NumberedRender], reader: TextReader, *, extras: Extras) -> Waiting:
        """Return tasks for the renders: one text pass serves all, and each start picture is encoded once."""
        renders = [render for _, render in numbered]
        for hires in {render.hires for render in renders if render.hires}:
            self._open.upscaler(hires, extras)  # a model that cannot be opened is an error before the first step
        conditionings = condition_all(reader, renders, calls=denoiser_calls)
        openings = {
            file: Openings(self._open.vae(file, extras), extras.starts, channels=self.unet.shape.in_channels)
            for file in dict.fromkeys(render.vae for render in renders)
        }
        opened = [openings[render.vae].of(render) for render in renders]
        tasks = [
            Task(
                at=at,
                render=render,
                picture=Picture(render=render, conditioning=text, start=opening.begin, beside=opening.beside),
                canvas=opening.canvas,
            )
            for (at, render), text, opening in zip(numbered, conditionings, opened, strict=True)
        ]
        two_pass_tasks = [task for task in tasks if second_follows(task.render)]
        second_by_place = {task.at: task for task in second_tasks(two_pass_tasks, reader)} if two_pass_tasks else {}
        return [
            replace(task, second=second_by_place[task.at].picture) if task.at in second_by_place else task
            for task in tasks
        ]

    def _draw_alike(
        self, refs: Sequence[LoraRef], read: Callable[[TextReader], Waiting], drawing: Drawing
    ) -> Iterator[Advance | Drawn]:
        """Draw pictures with the same LoRAs, as many at once as suits the device."""
        if drawing.halt.ended.is_set():
            return
        self._check_file()
        with self._drawing_with(refs, drawing.extras, read) as waiting:
            for _, alike in groupby(waiting, key=drawn_together):
                yield from self._draw_waiting(list(alike), drawing)
            yield from drawn_of(finished(drawing.decodings, wait=True))

    def _draw_waiting(self, waiting: Waiting, drawing: Drawing) -> Iterator[Advance | Drawn]:
        """Draw the pictures in batches that suit the device; when memory runs out, repeat the batch at half the
        size."""
        size = pictures_at_once(self.unet, waiting[0].render, begins=waiting[0].picture.start)
        while waiting and not drawing.halt.ended.is_set():
            try:
                yield from self._draw_batch(waiting, drawing, size=size)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            size = self._halved(min(size, len(waiting)), waiting[0].render)

    def _draw_batch(self, waiting: Waiting, drawing: Drawing, *, size: int) -> Iterator[Advance | Drawn]:
        """Draw the first `size` of the waiting pictures; each leaves the list once it is being decoded or drawn
        again."""
        batch, latents, half_done = waiting[:size], None, None
        prediction = batch[0].render.prediction or self.facts.prediction
        refiner = self._refined(batch, size, drawing.extras)
        for step in sample(self.unet, self._filled(batch, size), prediction=prediction, refiner=refiner):
            latents = step.latent[: len(batch)]
            if self.device.type == "cpu" and not any(sound_of(latents)):  # looking makes a GPU wait
                raise not_finite(batch[0].render)
            yield advance_of(
                batch, step, preview(self._colours, step.denoised[: len(batch)]) if drawing.previews else None
            )
            yield from drawn_of(finished(drawing.decodings))
            if drawing.halt.taken() and step.number < step.total:
                at_hand = drawing.halt.at_hand
                batch, latents, half_done = batch[:at_hand], step.denoised[:at_hand], step.number
                break
        assert latents is not None
        sound, again = sound_of(latents), []
        for task, latent, is_sound in zip(batch, latents, sound, strict=True):
            if is_sound and task.render.hires and not task.steps_before and half_done is None:
                again += self._second_pass(task, latent, drawing)
            elif is_sound:
                self._decode(task, latent, drawing, half_done=half_done)
            del waiting[0]
            yield from drawn_of(finished(drawing.decodings))
        for _, alike in groupby(again, key=drawn_together):
            yield from self._draw_waiting(list(alike), drawing)
        if not all(sound):
            yield from drawn_of(finished(drawing.decodings, wait=True))
            raise not_finite(batch[sound.index(False)].render)

    def _filled(self, batch: Waiting, size: int) -> list[Picture]:
        """Return the batch's pictures; a CPU's are filled up to a constant size, so that no picture's bits depend on
        another's."""
        pictures = [task.picture for task in batch]
        render = pictures[0].render
        fills = self.device.type == "cpu" and not find_sampler(render.sampler, render.scheduler)[0].alone
        return pictures + [pictures[-1]] * (size - len(pictures)) if fills else pictures

    def _second_pass(self, task: Task, latent: PictureLatent, drawing: Drawing) -> Waiting:
        """Return the second pass of a picture whose first is done; none where it is only enlarged, or has other
        LoRAs."""
        hires = task.render.hires
        assert hires is not None
        vae = self._open.vae(task.render.vae, drawing.extras)
        larger = enlarged(vae, latent, task.render, upscale=self._open.upscaler(hires, drawing.extras))
        if not hires.strength:
            self._decode(task, larger, drawing)
            return []
        begin = Begin(latent=larger, strength=hires.strength, every_step=True)
        openings = Openings(vae, {}, channels=self.unet.shape.in_channels)
        beside = openings.larger(larger, seed=task.render.seed)
        next_task = replace(task, second=None, steps_before=task.render.steps)
        if task.second is None:
            drawing.apart.append(replace(next_task, picture=replace(task.picture, start=begin, beside=beside)))
            return []
        return [replace(next_task, picture=replace(task.second, start=begin, beside=beside))]

    def _decode(self, task: Task, latent: PictureLatent, drawing: Drawing, *, half_done: int | None = None) -> None:
        pixels = decode_on_device(self._open.vae(task.render.vae, drawing.extras), latent[None])[0]
        drawing.decodings.append(
            Decoding.start(pixels, indices=task.at, render=task.render, half_done=half_done, canvas=task.canvas)
        )

    def _halved(self, size: int, render: Render) -> int:
        """Return the next size to try after memory ran out; SpecError when a single picture is too large."""
        empty_cache(self.device)
        if size == 1:
            raise SpecError(
                f"a picture of {render.width} x {render.height} does not fit into the free memory "
                f"({free_bytes(self.device) / 1e9:.1f} GB); ask for a smaller one or close other programs",
                field="size",
            )
        return size // 2

    def _check_file(self) -> None:
        """Raise DamagedFile when the checkpoint's file is not the one that was loaded."""
        if not self.facts.source.unchanged:
            path = self.facts.source.path
            now = f"its hash is now {hash_file(path).autov2}" if path.is_file() else "it is gone now"
            raise DamagedFile(
                f"{path} changed while it was in use: {self.facts.ref.hash} was loaded, but {now}; "
                "start again with the file that you want",
                field="model",
            )


def _weighted(refs: Sequence[LoraRef], extras: Extras) -> list[Weighted]:
    """Return the LoRAs with their strengths on the text encoders and on the UNet."""
    return [(extras.loras[ref.hash], ref.text_encoder, ref.unet) for ref in refs]
