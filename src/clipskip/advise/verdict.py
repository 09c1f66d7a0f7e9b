"""The verdict: evidence on the model, its LoRAs and the prompt in; one Clip Skip, the reason, and how sure it is, out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clipskip.advise.prompted import Prompted

MOST_SURE = 0.99
"""Nothing is called surer than this."""
KNOWN = 0.6
"""A trained Clip Skip that is less probable than this counts as not known."""
ALIKE = 0.03
"""Guidance that changes by less than this share between Clip Skips makes no difference that matters."""

Chances = Mapping[int, float]
"""How probable it is, by Clip Skip, that something was trained at it."""


class Answer(StrEnum):
    """The kind of a verdict."""

    VALUE = "value"
    NO_DIFFERENCE = "no difference that matters"
    NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One Clip Skip."""

    answer: Answer
    skip: int
    """What to use; where nothing is known, where to start."""
    sure: float
    """0 to 1."""
    text: str
    """At most two sentences, without the number: a tool may count otherwise."""


def decide(model: Chances, loras: Mapping[str, Chances], prompted: Prompted | None, *, default: int) -> Verdict:
    """Return the verdict; `default` is where the model's family starts."""
    trained, sure = _most(model)
    if prompted is not None and _skips_alike(prompted):
        text = "Every Clip Skip that was asked about guides this prompt alike" + _ignored(prompted)
        return Verdict(answer=Answer.NO_DIFFERENCE, skip=trained if sure >= KNOWN else default, sure=1.0, text=text)
    if sure < KNOWN and not any(_most(chances)[1] >= KNOWN for chances in loras.values()):
        text = "Nothing says what this was trained at; captioned pictures of its kind (--images) would"
        return Verdict(answer=Answer.NOT_KNOWN, skip=default, sure=sure, text=text)
    if not loras:
        text = "This model was most probably trained at it" + _ignored(prompted)
        return Verdict(answer=Answer.VALUE, skip=trained, sure=sure, text=text)
    return _with_loras(model, loras, prompted)


def _with_loras(model: Chances, loras: Mapping[str, Chances], prompted: Prompted | None) -> Verdict:
    """Return the Clip Skip that the model and LoRAs were trained at if it is one; else the one that loses the least of them."""
    trained, sure = _most(model)
    own = {name: _most(chances) for name, chances in loras.items()}
    names = " and ".join(own)
    known = [(name, *chance) for name, chance in own.items() if chance[1] >= KNOWN]
    others = [f"{name} at {skip}" for name, skip, _ in known if skip != trained]
    if not others or prompted is None or not prompted.loras:
        best = trained if sure >= KNOWN else known[0][1]
        least = min([sure if sure >= KNOWN else 1.0, *(lora[2] for lora in known if lora[1] == best)])
        told = (
            f"The model and {names} were most probably trained at it"
            if not others
            else (f"The model was most probably trained at it, {', '.join(others)}")
        )
        return Verdict(answer=Answer.VALUE, skip=best, sure=least, text=told + _ignored(prompted))
    worth = {skip: _kept(prompted, column) for column, skip in enumerate(prompted.skips)}
    best = max(worth, key=lambda skip: worth[skip])
    text = (
        f"The model was most probably trained at {trained}, {', '.join(others)}; here the least of both is lost: "
        f"{worth[best]:.0%} is left of the weaker"
    )
    return Verdict(answer=Answer.VALUE, skip=best, sure=min([sure, *(lora[2] for lora in known)]), text=text)


def _kept(prompted: Prompted, column: int) -> float:
    """Return the weakest of the guidance and the LoRAs' uptake at a Clip Skip, of what each is at its own."""
    return min([prompted.guidance_kept[column], *(lora.uptake[column] for lora in prompted.loras)])


def _most(chances: Chances) -> tuple[int, float]:
    best = max(chances, key=lambda skip: chances[skip])
    return best, chances[best]


def _skips_alike(prompted: Prompted) -> bool:
    both = zip(prompted.guidance_kept, prompted.guidance_size, strict=True)
    return all(abs(kept - 1) < ALIKE and abs(size - 1) < ALIKE for kept, size in both)


def _ignored(prompted: Prompted | None) -> str:
    """Return a second sentence about phrases that nothing reacts to."""
    ignored: Sequence[str] = [phrase.phrase for phrase in prompted.phrases if phrase.ignored] if prompted else []
    if not ignored:
        return ""
    return (
        f". No Clip Skip makes the model react to {', '.join(repr(phrase) for phrase in ignored[:3])}: say it otherwise"
    )
