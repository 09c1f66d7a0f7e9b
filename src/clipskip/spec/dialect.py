"""Every tool's number for the same layer, both ways, for each family of models.

Rules read in each tool's source; `docs/clip-skip-in-every-tool.md` is this table in words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from clipskip.errors import SkipOutOfRange, SpecError
from clipskip.spec.family import Family
from clipskip.spec.skip import ClipSkip

Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a tool counts: its number is `sign * (n - offset)` for our n, and `least` is its smallest in size."""

    offset: int
    sign: int = 1
    least: int = 1
    fractions: bool = False
    only: tuple[int, ...] = ()
    """The Clip Skips that the tool can reach, where it cannot reach all."""
    note: str = ""


ONE_BASED = Rule(offset=0)
SKIPPED = Rule(offset=1, least=0)
SKIPPED_BEYOND_DEFAULT = Rule(offset=2, least=0)
NEGATIVE = Rule(offset=0, sign=-1)
ALIASES = {
    "automatic1111": "a1111",
    "webui": "a1111",
    "comfy": "comfyui",
    "sd.next": "sdnext",
    "invoke": "invokeai",
    "sdcpp": "stable-diffusion.cpp",
    "sd.cpp": "stable-diffusion.cpp",
    "easy-diffusion": "easydiffusion",
}
"""Other names that people type."""
POSITIVE_ONLY = "for the prompt alone: the negative prompt stays at the model's own layer unless you pass embeddings"


class Dialect(Enum):
    """A tool, by the name that users type."""

    A1111 = "a1111"
    FORGE = "forge"
    COMFYUI = "comfyui"
    SDNEXT = "sdnext"
    DIFFUSERS = "diffusers"
    INVOKEAI = "invokeai"
    SDCPP = "stable-diffusion.cpp"
    KOHYA = "kohya"
    ONETRAINER = "onetrainer"
    COMPEL = "compel"
    EASYDIFFUSION = "easydiffusion"

    @classmethod
    def parse(cls, text: str) -> "Dialect":
        """The tool of this name; comfy, sd.next, invoke, sdcpp and the like are understood."""
        plain = text.strip().lower().replace("_", "-")
        plain = ALIASES.get(plain, plain)
        try:
            return cls(plain)
        except ValueError:
            raise SpecError(
                f"tool {text!r} is not known; use one of {', '.join(d.value for d in cls)}", field="dialect"
            ) from None


RULES: dict[Family, dict[Dialect, Rule]] = {
    Family.SD1: {
        Dialect.A1111: ONE_BASED,
        Dialect.FORGE: ONE_BASED,
        Dialect.COMFYUI: Rule(offset=0, sign=-1, note="-13 and below silently mean the last layer there"),
        Dialect.SDNEXT: Rule(offset=0, fractions=True, note="counts only once Clip Skip is enabled in its settings"),
        Dialect.DIFFUSERS: Rule(offset=1, least=0, note=POSITIVE_ONLY),
        Dialect.INVOKEAI: SKIPPED,
        Dialect.SDCPP: ONE_BASED,
        Dialect.KOHYA: ONE_BASED,
        Dialect.ONETRAINER: SKIPPED,
        Dialect.COMPEL: Rule(
            offset=0, only=(1, 2), note="1 is LAST_HIDDEN_STATES_NORMALIZED, 2 PENULTIMATE_HIDDEN_STATES_NORMALIZED"
        ),
        Dialect.EASYDIFFUSION: Rule(offset=1, least=0, only=(1, 2), note="a switch: 0 is off, 1 is on"),
    },
    Family.SD2: {
        Dialect.A1111: Rule(offset=0, only=(2,), note="the setting is ignored: always the model's own layer"),
        Dialect.FORGE: Rule(offset=1, note="counts on the 23 layers of its file"),
        Dialect.COMFYUI: NEGATIVE,
        Dialect.SDNEXT: Rule(offset=1, fractions=True, note="counts on the 23 layers of its file"),
        Dialect.DIFFUSERS: Rule(offset=2, least=0, note=POSITIVE_ONLY),
        Dialect.INVOKEAI: SKIPPED_BEYOND_DEFAULT,
        Dialect.SDCPP: ONE_BASED,
        Dialect.KOHYA: Rule(offset=1, note="counts on the 23 layers of its file"),
    },
    Family.SDXL: {
        Dialect.A1111: Rule(offset=0, note='CLIP-L alone, and only with "Clip skip SDXL" on (1.10); ignored otherwise'),
        Dialect.FORGE: Rule(offset=0, least=2, note="1 means 2 there"),
        Dialect.COMFYUI: Rule(offset=0, sign=-1, note="-13 and below part the two encoders"),
        Dialect.SDNEXT: Rule(offset=1, fractions=True),
        Dialect.DIFFUSERS: Rule(offset=2, least=0, note=POSITIVE_ONLY),
        Dialect.INVOKEAI: Rule(
            offset=2, least=0, note="by the node alone: the page hides it; the pooled vector changes too"
        ),
        Dialect.SDCPP: ONE_BASED,
        Dialect.KOHYA: Rule(offset=0, note="gen_img only: training is fixed at 2"),
    },
}


def to_dialect(skip: ClipSkip, dialect: Dialect, *, family: Family = Family.SD1) -> Number:
    """The tool's number for this layer; SpecError says why it has none."""
    rule = _rule(dialect, family)
    skip.check(family.depth)
    tool = dialect.value
    if skip.fraction and not rule.fractions:
        raise SpecError(
            f"{tool} has no Clip Skip between layers, so {skip} has no number there; use {skip.shallow} or {skip.deep}",
            field="clip_skip",
        )
    if rule.only and skip.from_end not in rule.only:
        has = ", ".join(str(n) for n in rule.only)
        raise SpecError(
            f"{tool} cannot use Clip Skip {skip} on {family.label}; it has {has} ({rule.note})", field="clip_skip"
        )
    number = skip.from_end - rule.offset
    if number < rule.least:
        raise SpecError(
            f"{tool} cannot use Clip Skip {skip} on {family.label}; {rule.least + rule.offset} is the first that it has",
            field="clip_skip",
        )
    return rule.sign * number


def from_dialect(number: Number, dialect: Dialect, *, family: Family = Family.SD1) -> ClipSkip:
    """The layer that a tool's number means; out of range names the range that is right there."""
    rule = _rule(dialect, family)
    fraction = not float(number).is_integer()
    value = rule.sign * number
    n = value + rule.offset
    high = rule.sign * (family.depth - rule.offset)
    if (
        value < rule.least
        or n > family.depth
        or (rule.only and n not in rule.only)
        or (fraction and not rule.fractions)
    ):
        low = rule.sign * rule.least
        span = f"{low} to {high}" if not rule.only else ", ".join(str(rule.sign * (m - rule.offset)) for m in rule.only)
        raise SkipOutOfRange(
            f"{dialect.value} has no {number:g} on {family.label} ({family.depth} layers); use {span}",
            field="clip_skip",
        )
    return ClipSkip(n)


def _rule(dialect: Dialect, family: Family) -> Rule:
    if not family.usable:
        raise SpecError(f"Clip Skip means nothing on {family.label}: {family.why_not}", field="family")
    if dialect not in RULES[family]:
        raise SpecError(f"{dialect.value} has no Clip Skip on {family.label} that we know of", field="dialect")
    return RULES[family][dialect]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the conversion table."""

    dialect: Dialect
    number: str
    """"-" where the tool cannot reach this layer."""
    note: str


def conversion_table(skip: ClipSkip, *, family: Family = Family.SD1) -> Iterator[Row]:
    """Every tool's number for this layer."""
    skip.check(family.depth)
    for dialect, rule in RULES[family].items():
        try:
            yield Row(dialect=dialect, number=f"{to_dialect(skip, dialect, family=family):g}", note=rule.note)
        except SpecError as error:
            yield Row(dialect=dialect, number="-", note=str(error))
