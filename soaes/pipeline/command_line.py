"""The overrides of a command line, read by Hydra's own parser.

Whatever asks for the value of a key asks here, so that `seed=7`, `++seed=7` and `seed="7"` are one
thing everywhere. Knows words alone: no configuration is composed.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException


def parse(words: Sequence[str]) -> list[Override]:
    """Parse overrides.

    Raises:
        ValueError: A word is no override.
    """
    try:
        return [_parsed(word) for word in words]
    except HydraException as error:
        for word in words:
            if re.search("=,|,,|,$", word) and not _is_override(word):
                raise ValueError(
                    f"{word}: a comma has no value beside it; leave it out, as in key=a,b"
                ) from None
        first_line = str(error).splitlines()[0]
        reason = first_line.partition(": ")[2] or first_line
        raise ValueError(
            f"{reason}: not an override; it reads key=value, and text beyond letters and digits "
            "takes quotes: 'key=\"值\"'"
        ) from None


@functools.lru_cache(maxsize=1024)
def _parsed(word: str) -> Override:
    """Parse one word. A job asks for the values of many keys, each time of the same words."""
    (override,) = OverridesParser.create().parse_overrides([word])
    return override


def _is_override(word: str) -> bool:
    try:
        _parsed(word)
    except HydraException:
        return False
    return True


def key_of(override: Override) -> str:
    """Return the key of an override without its `+` or `~`: `seed`, `chain@target`."""
    return str(override.get_key_element()).lstrip("+~")


def values(override: Override, options: Sequence[str] = ()) -> list[str]:
    """Return the values that an override takes in turn, as they are typed; one if it is not swept.

    Args:
        override: What was parsed; a deleted key has no value.
        options: What a glob chooses among, as in `chain@target=glob(*)`: the options of a group.

    Raises:
        ValueError: It sweeps over an interval, a glob chooses nothing, or a value is given twice.
    """
    if override.is_delete():
        return []
    if not override.is_sweep_override():
        return [str(override.get_value_element_as_str())]
    chosen = override.value()
    if isinstance(chosen, Glob):
        names = [name for name in options if _matches(name, chosen)]
        if names:
            return names
    try:
        listed = [str(value) for value in override.sweep_string_iterator()]
    except HydraException:  # an interval, or a glob that is no group's
        among = f" (it chooses among {', '.join(options)})" if options else ""
        raise ValueError(
            f"{override.input_line}: its values cannot be listed{among}; "
            "write them out, as in key=a,b or key=range(0,3)"
        ) from None
    seen: dict[str | float, str] = {}
    for text in listed:
        number_or_word = _number_or_word(text)
        if number_or_word in seen:
            both = dict.fromkeys([seen[number_or_word], text])
            raise ValueError(
                f"{override.input_line}: {' and '.join(both)} would be one job twice; leave one out"
            )
        seen[number_or_word] = text
    return listed


def _number_or_word(text: str) -> str | float:
    """Return a number for a text that is one: `1` and `1.0` are one value."""
    try:
        return float(text)
    except ValueError:
        return text


def _matches(name: str, glob: Glob) -> bool:
    included = any(fnmatch.fnmatch(name, pattern) for pattern in glob.include)
    return included and not any(fnmatch.fnmatch(name, pattern) for pattern in glob.exclude)


def last(words: Sequence[str], key: str) -> Override | None:
    """Return the override of a key that counts: the last one that gives it a value."""
    given = None
    for override in parse(words):
        if key_of(override) == key and not override.is_delete():
            given = override
    return given


def value(words: Sequence[str], key: str) -> str | None:
    """Return the value of a key that is not swept, without quotes; None if no word gives one."""
    override = last(words, key)
    if override is None or override.is_sweep_override():
        return None
    return None if override.value() is None else str(override.value())


def without(words: Iterable[str], key: str) -> list[str]:
    """Return the words that do not set a key."""
    return [word for word in words if key_of(parse([word])[0]) != key]
