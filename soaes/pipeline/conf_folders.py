"""The folders in which Hydra looks for configuration: conf/, and one of the user's behind it.

`--config-dir FOLDER` is Hydra's own flag, and every command that composes takes it:
`FOLDER/domain/cooking.yaml` is then `domain=cooking`. Hydra reads the first file of a name, so a
file of the user's that has the name of one of ours would count for nothing; it is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

FLAGS = ("--config-dir", "-cd")
READ = (".yaml", ".md")  # settings, and pages that they name
UNQUOTED = '"\\$'  # characters that a path may not hold to stand in an override of Hydra's


def shipped_folder(name: str) -> Path:
    """Return a folder that comes with the code, `conf` or `experiments`.

    An installed package has it inside (`soaes/conf`, as package data), a checkout beside `soaes/`.
    """
    package = Path(__file__).parent.parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


CONF = shipped_folder("conf")


@dataclass(frozen=True)
class OwnFolder:
    """The user's folder of a command line, as it was when the command began."""

    given: str
    """Its path as it was typed."""

    path: Path
    """The same, absolute."""

    digest: str
    """Digest of its files."""


_own: OwnFolder | None = None  # of this process, as is what Hydra itself is initialised with


def use(folder: str | None) -> None:
    """Let this process look into a folder of the user's, too; None: into conf/ alone.

    Raises:
        ValueError: There is no such folder, or a file in it cannot be read, has the name of one of
            ours, or would never be looked for.
    """
    global _own
    _own = None
    if folder is None:
        return
    path = Path(folder).expanduser().absolute()
    if not folder.strip() or not path.is_dir():
        raise ValueError(
            f"--config-dir {folder}: there is no such folder; name the one in which your domain/, "
            "prompt/ or experiment/ lies"
        )
    if any(character in str(path) for character in UNQUOTED):
        raise ValueError(
            f"--config-dir {folder}: Hydra cannot read a path with one of {' '.join(UNQUOTED)}; "
            "rename the folder"
        )
    for file in _files(path):
        _check_file(path, file)
    _own = OwnFolder(folder, path, hashlib.sha256(_content(path)).hexdigest()[:16])


def split(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Split a command line into the words without the flag, and the folder that the flag names.

    Raises:
        ValueError: The flag is given twice, or without a folder.
    """
    others: list[str] = []
    folders: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, has_value, value = word.partition("=")
        if flag in FLAGS:
            folders.append(value if has_value else next(rest, ""))
        else:
            others.append(word)
    if len(folders) > 1:
        raise ValueError(f"--config-dir {' and '.join(folders)}: give one folder")
    return others, folders[0] if folders else None


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the flag to a command line of ours; its value is for `use`."""
    parser.add_argument(
        *FLAGS,
        metavar="FOLDER",
        help="a folder of your own beside conf/, such as one with domain/cooking.yaml",
    )


def command(words: Sequence[str]) -> str:
    """Return the command of soaes.run with some words, and with the flag of this process."""
    flag = ["--config-dir", _own.given] if _own else []
    return shlex.join(["python", "-m", "soaes.run", *flag, *words])


# ------------------------------------------------------------------------------ what Hydra is told


def overrides() -> list[str]:
    """Return the overrides by which Hydra looks into the user's folder, if there is one."""
    return [f'hydra.searchpath=["file://{_own.path}"]'] if _own else []


def given() -> str | None:
    """Return the path of the user's folder as it was typed; None where there is none."""
    return _own.given if _own else None


def digest() -> str:
    """Return the digest of the user's folder; "" where there is none."""
    return _own.digest if _own else ""


# ----------------------------------------------------------------------------- what can be chosen


def folders() -> list[Path]:
    """Return the folders in the order in which Hydra looks into them."""
    return [CONF, _own.path] if _own else [CONF]


def groups() -> list[str]:
    """Return the names of all config groups."""
    names = (path.name for folder in folders() for path in folder.iterdir() if path.is_dir())
    return list(dict.fromkeys(names))


def is_group(key: str) -> bool:
    """Tell whether a key is a config group, of which an option is chosen."""
    return any((folder / key).is_dir() for folder in folders())


def options(group: str) -> list[str]:
    """Return the options of a config group; none if it is a key."""
    paths = (path for folder in folders() for path in (folder / group).glob("*.yaml"))
    return sorted(path.stem for path in paths)


def option_file(group: str, option: object) -> Path | None:
    """Return the file of an option; None where there is none."""
    paths = (folder / group / f"{option}.yaml" for folder in folders())
    return next((path for path in paths if path.exists()), None)


def content() -> bytes:
    """Return the content of all files that a composition can read."""
    return b"".join(map(_content, folders()))


# -------------------------------------------------------------------------------- the user's files


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, without what is hidden, such as .git."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            yield path


def _content(folder: Path) -> bytes:
    files = [path for path in _files(folder) if path.suffix in READ]
    named = (str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)
    return b"".join(named)


def _check_file(folder: Path, path: Path) -> None:
    """Check that Hydra will find and read a file of the user's folder.

    Raises:
        ValueError: It will not.
    """
    if path.suffix == ".yml":
        raise ValueError(f"{path}: Hydra reads .yaml alone; rename it to {path.stem}.yaml")
    if path.suffix not in READ:
        return
    name = path.relative_to(folder)
    if (CONF / name).exists():
        raise ValueError(
            f"{path}: conf/{name} is a file of ours, which would be read instead; give yours "
            f"another name, as in {name.with_stem('my_' + name.stem)}"
        )
    if path.suffix != ".yaml":
        return
    if len(name.parts) == 1:
        raise ValueError(
            f"{path}: lies in no config group, where nothing reads it; move it into domain/, "
            "prompt/ or another one, or give the folder above"
        )
    group = name.parts[0]
    ours = [path.name for path in CONF.iterdir() if path.is_dir()]
    near = get_close_matches(group, ours, 1, 0.8) if group not in ours else []
    if near:
        raise ValueError(
            f"{path}: there is no config group {group}; Did you mean {near[0]}? Then rename the "
            "folder"
        )
    try:
        written = OmegaConf.load(path)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8; save it in that encoding") from None
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        raise ValueError(f"{path}: {_in_one_line(error)}; correct the YAML") from None
    except RecursionError:
        raise ValueError(f"{path}: lists or entries are nested too deep; flatten them") from None
    if not isinstance(written, DictConfig):
        raise ValueError(f"{path}: must hold settings, as in `key: value`")


def _in_one_line(error: Exception) -> str:
    """Return what is wrong with a file, and where."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())
