"""Draw the facts of the world from a seed and sizes. Knows names and values: not sentences, not files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

from soaes.world import enterprises as pools
from soaes.world.names import NAMES, VALUES

BRANDS = ["".join(parts) for parts in product(*pools.BRANDS)]
CHAIRMEN = ["".join(parts) for parts in product(*pools.CHAIRMEN)]
LISTED = ["".join(parts) for parts in product(*pools.LISTED)]
MOST_ENTERPRISES = min(len(BRANDS), len(CHAIRMEN), len(LISTED))
MOST_ENTITIES = len(NAMES) * min(len(list(product(*parts))) for parts in NAMES.values())
FEWEST_ENTITIES = 6


@dataclass(frozen=True)
class Entity:
    """A named thing with (attribute, value) pairs; `kind` is "enterprise" or a key of `names.NAMES`."""

    name: str
    kind: str
    attributes: tuple[tuple[str, str], ...]

    def __getitem__(self, attribute: str) -> str:
        return dict(self.attributes)[attribute]


@dataclass(frozen=True)
class World:
    """General entities, famous enterprises of the general corpus, and enterprises that only the domain knows."""

    general: tuple[Entity, ...]
    famous: tuple[Entity, ...]
    enterprises: tuple[Entity, ...]

    @property
    def known(self) -> tuple[Entity, ...]:
        """What the general corpus tells about."""
        return self.general + self.famous


def build(seed: int, entities: int, famous: int, enterprises: int) -> World:
    """Draw a world: `entities` general entities, `famous` and `enterprises` state-owned enterprises."""
    _check("entities", entities, FEWEST_ENTITIES, MOST_ENTITIES)
    _check("famous", famous, 1, MOST_ENTERPRISES - 1)
    _check("enterprises", enterprises, 1, MOST_ENTERPRISES - famous)
    everyone = tuple(_enterprises(Random(f"{seed}/enterprises"), famous + enterprises))
    return World(
        tuple(_general(Random(f"{seed}/general"), entities)), everyone[:famous], everyone[famous:]
    )


def facts(entities: Iterable[Entity]) -> list[tuple[Entity, str]]:
    """Every (entity, attribute), in the order of the world."""
    return [(entity, attribute) for entity in entities for attribute, _ in entity.attributes]


def alternatives(entities: Iterable[Entity]) -> dict[tuple[str, str], list[str]]:
    """(kind, attribute) -> the values that wrong options may take: those in use, or the closed list if they are few."""
    used: dict[tuple[str, str], list[str]] = {}
    for entity, attribute in facts(entities):
        values = used.setdefault((entity.kind, attribute), [])
        if entity[attribute] not in values:
            values.append(entity[attribute])
    return {key: values if len(values) >= 10 else _closed(*key) for key, values in used.items()}


def _closed(kind: str, attribute: str) -> list[str]:
    if kind != "enterprise":
        return VALUES[kind][attribute]
    return {"chairman": CHAIRMEN, "subsidiary": LISTED, **pools.VALUES}[attribute]


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(
            f"{name}={value} is outside {least}..{most}, which the name pools allow; set {name} within it"
        )


def _general(rng: Random, count: int) -> Iterator[Entity]:
    # A small world has few kinds, so that each kind still has enough entities for an exam subject.
    kinds = list(NAMES)[: max(3, min(len(NAMES), count // 8))]
    for index, kind in enumerate(kinds):
        share = count // len(kinds) + (index < count % len(kinds))
        for parts in rng.sample(list(product(*NAMES[kind])), share):
            values = (
                (attribute, rng.choice(options)) for attribute, options in VALUES[kind].items()
            )
            yield Entity("".join(parts), kind, tuple(values))


def _enterprises(rng: Random, count: int) -> Iterator[Entity]:
    brands, chairmen, listed = (rng.sample(pool, count) for pool in (BRANDS, CHAIRMEN, LISTED))
    for brand, chairman, company in zip(brands, chairmen, listed, strict=True):
        yield Entity(
            f"{brand}{rng.choice(pools.SECTORS)}集团",
            "enterprise",
            _attributes(rng, chairman, company),
        )


def _attributes(rng: Random, chairman: str, company: str) -> tuple[tuple[str, str], ...]:
    supervisor = rng.choice(pools.VALUES["supervisor"])
    drawn = {attribute: rng.choice(values) for attribute, values in pools.VALUES.items()}
    fixed = {
        "supervisor": supervisor,
        "headquarters": rng.choice(_cities(supervisor)),
        "founded": drawn["founded"],
        "chairman": chairman,
        "business": drawn["business"],
        "revenue": drawn["revenue"],
        "subsidiary": company,
    }
    return tuple({**fixed, "reform": drawn["reform"], "platform": drawn["platform"]}.items())


def _cities(supervisor: str) -> Sequence[str]:
    # A provincial enterprise sits in its province, a central one anywhere.
    return pools.CITIES.get(supervisor.removesuffix("国资委"), pools.VALUES["headquarters"])
