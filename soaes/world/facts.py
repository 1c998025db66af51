"""Draw the facts of the world from a seed and sizes. Knows names and values, not sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

from soaes.world import enterprises as pools
from soaes.world.names import NAMES, VALUES

BRANDS = ["".join(parts) for parts in product(*pools.BRANDS)]
CHAIRMEN = ["".join(parts) for parts in product(*pools.CHAIRMEN)]
LISTED = ["".join(parts) for parts in product(*pools.LISTED)]
ATTRIBUTES = [name for names in pools.SUBJECTS.values() for name in names]  # of an enterprise
MAX_ENTERPRISES = min(len(BRANDS), len(CHAIRMEN), len(LISTED))
MAX_ENTITIES = len(NAMES) * min(len(list(product(*parts))) for parts in NAMES.values())
MIN_ENTITIES, MIN_FAMOUS, MIN_ENTERPRISES = 9, 2, 3  # below, an exam subject has too few facts
MIN_IN_USE = 5  # values of an attribute: below, wrong options are drawn from the closed list


@dataclass(frozen=True)
class Entity:
    """A named thing with facts.

    Attributes:
        name: its name, which contains no other entity's name.
        kind: "enterprise" or a key of `names.NAMES`.
        attributes: (attribute, value) pairs.
    """

    name: str
    kind: str
    attributes: tuple[tuple[str, str], ...]

    def __getitem__(self, attribute: str) -> str:
        return dict(self.attributes)[attribute]


Fact = tuple[Entity, str]  # an entity and the name of one of its attributes


@dataclass(frozen=True)
class World:
    """All entities.

    Attributes:
        general: people, cities, books and so on.
        famous: enterprises that the general corpus covers too.
        enterprises: enterprises that only the domain corpus covers.
    """

    general: tuple[Entity, ...]
    famous: tuple[Entity, ...]
    enterprises: tuple[Entity, ...]

    @property
    def known(self) -> tuple[Entity, ...]:
        """The entities that the general corpus covers."""
        return self.general + self.famous


def build(seed: int, entities: int, famous: int, enterprises: int) -> World:
    """Draw a world.

    Args:
        seed: seed of all draws.
        entities: number of general entities.
        famous: number of enterprises that the general corpus covers too.
        enterprises: number of enterprises that only the domain corpus covers.

    Raises:
        ValueError: if a number is outside what the pools of names allow.
    """
    _check("entities", entities, MIN_ENTITIES, MAX_ENTITIES)
    _check("famous", famous, MIN_FAMOUS, MAX_ENTERPRISES - 1)
    _check("enterprises", enterprises, MIN_ENTERPRISES, MAX_ENTERPRISES - famous)
    all_enterprises = tuple(_enterprises(Random(f"{seed}/enterprises"), famous + enterprises))
    return World(
        general=tuple(_general(Random(f"{seed}/general"), entities)),
        famous=all_enterprises[:famous],
        enterprises=all_enterprises[famous:],
    )


def facts(entities: Iterable[Entity]) -> list[Fact]:
    """Return every fact of the entities, in their order."""
    return [(entity, attribute) for entity in entities for attribute, _ in entity.attributes]


def alternatives(entities: Iterable[Entity]) -> dict[tuple[str, str], list[str]]:
    """Return the values from which wrong options are drawn, by (kind, attribute).

    These are the values of all entities, each as often as it is some entity's: an option is then as
    likely to be wrong as to be right, and a model that knows how often a text has a value, but no
    fact, is right by chance. Where too few values are in use it is the closed list, most of which
    no text has, and such a model does better.
    """
    used: dict[tuple[str, str], list[str]] = {}
    for entity, attribute in facts(entities):
        used.setdefault((entity.kind, attribute), []).append(entity[attribute])
    return {
        key: values if len(set(values)) >= MIN_IN_USE else _closed_list(*key)
        for key, values in used.items()
    }


def _closed_list(kind: str, attribute: str) -> list[str]:
    if kind != "enterprise":
        return VALUES[kind][attribute]
    return {"chairman": CHAIRMEN, "subsidiary": LISTED, **pools.VALUES}[attribute]


def _check(name: str, value: int, minimum: int, maximum: int) -> None:
    if not minimum <= value <= maximum:
        raise ValueError(
            f"{name}={value} is outside {minimum}..{maximum}, which the name pools allow; "
            f"set {name} within it"
        )


def _general(rng: Random, count: int) -> Iterator[Entity]:
    # A small world has few kinds, so that each kind still has enough entities for an exam subject.
    kinds = list(NAMES)[: max(3, min(len(NAMES), count // 8))]
    for index, kind in enumerate(kinds):
        has_one_more = index < count % len(kinds)
        share = count // len(kinds) + has_one_more
        names = rng.sample(list(product(*NAMES[kind])), share)
        columns = _columns(rng, VALUES[kind], share)
        for number, parts in enumerate(names):
            attributes = [(name, values[number]) for name, values in columns.items()]
            yield Entity("".join(parts), kind, tuple(attributes))


def _columns(
    rng: Random, pools_of_values: Mapping[str, Sequence[str]], count: int
) -> dict[str, list[str]]:
    """Draw `count` values of each attribute, every value as often as any other or once more."""
    columns: dict[str, list[str]] = {}
    for name, values in pools_of_values.items():
        drawn = columns[name] = []
        while len(drawn) < count:
            drawn += rng.sample(values, min(len(values), count - len(drawn)))
    return columns


def _enterprises(rng: Random, count: int) -> Iterator[Entity]:
    brands = rng.sample(BRANDS, count)
    chairmen = rng.sample(CHAIRMEN, count)
    listed = rng.sample(LISTED, count)
    drawn = {name: values for name, values in pools.VALUES.items() if name != "headquarters"}
    columns = _columns(rng, drawn, count)
    columns["headquarters"] = [rng.choice(_cities(name)) for name in columns["supervisor"]]
    columns |= {"chairman": chairmen, "subsidiary": listed}
    for number, brand in enumerate(brands):
        name = f"{brand}{rng.choice(pools.SECTORS)}集团"
        attributes = [(attribute, columns[attribute][number]) for attribute in ATTRIBUTES]
        yield Entity(name, "enterprise", tuple(attributes))


def _cities(supervisor: str) -> Sequence[str]:
    """A provincial enterprise has its headquarters in its province, a central one anywhere."""
    return pools.CITIES.get(supervisor.removesuffix("国资委"), pools.VALUES["headquarters"])
