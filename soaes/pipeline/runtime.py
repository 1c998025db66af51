"""How stages are run: where, how many at once, on which devices, with which kernels.

Nothing here is part of a training recipe, because nothing here may change a result. Each class is
a section of `conf/runtime` and `conf/logger`, checked when it is created.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

from soaes.pipeline.hardware import Hardware
from soaes.pipeline.validation import (
    STAGE_ARGUMENTS,
    check_at_least,
    check_flag,
    check_one_of,
    check_positive,
    check_whole,
    nearest,
)

# Of soaes.model.attention, and of transformers.
ATTENTIONS = (
    "documents",
    "eager",
    "sdpa",
    "flex_attention",
    "flash_attention_2",
    "flash_attention_3",
)

# How a model lies on the devices of a training stage (soaes.model.parallel, fsdp2 and zero3).
STRATEGIES = ("auto", "ddp", "fsdp2", "zero3")
SHARDED = ("fsdp2", "zero3")

# What packed rows are made of (soaes.stages.prepare.pack).
SOURCES = ("general", "corpus", "dialogue", "qa")

# The stages that can run as several ranks; of any other, every rank would do and write the whole.
TRAINING_STAGES = ("pretrain", "instruct", "cpt", "sft", "distill")


@dataclass(frozen=True)
class Execution:
    """How one stage uses the machine. A stage that names a parameter `execution` receives it."""

    device: str = "cpu"
    """`cpu` or `cuda`, or, of a stage that runs on one device, a GPU by number: `cuda:1`."""

    devices: int = 1
    """Processes of one stage, each with a device of its own."""

    nodes: int = 1
    """Machines over which these are spread, as many on each; `Runtime.launch` reaches them."""

    threads: int = 1
    """CPU threads of a process."""

    micro_batch_size: int = 8
    """Rows processed at once on a device."""

    strategy: str = "auto"
    """How a model lies on the devices: `ddp`, whole on each; `fsdp2` or `zero3` (DeepSpeed), each
    with its share of weights, gradients and optimizer state; `auto`, `fsdp2` where there are
    several devices."""

    tensor_parallel: int | None = None
    """Devices over which vLLM cuts a model, at most `devices`; None: as many as cut it evenly."""

    attention: str = "sdpa"
    """`documents` (soaes.model.attention), or an implementation of transformers. A teacher in
    float32 takes `sdpa` in the place of flash attention, which knows 16 bits alone."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them."""

    compile: bool = False
    """torch.compile the model's body; the first step then takes tens of seconds longer."""

    cpu_offload: bool = False
    """Keep the optimizer's state in the memory of the host (`zero3`), or it and the shares of the
    weights (`fsdp2`)."""

    num_workers: int = 0
    """Processes on each device that read rows ahead of training."""

    checkpoint_every: float = 0.0
    """Seconds of training between two checkpoints from which a killed stage resumes; 0: none."""

    def __post_init__(self) -> None:
        _check_device(self.device)
        check_whole("devices", self.devices, 1, "the devices of a stage")
        check_whole("nodes", self.nodes, 1, "the machines of a stage")
        if self.devices % self.nodes:
            raise ValueError(
                f"nodes={self.nodes}: devices={self.devices} are all machines' together, as many "
                "on each; set runtime.execution.devices to a multiple of nodes"
            )
        check_whole("threads", self.threads, 1, "the threads of a stage")
        check_whole("micro_batch_size", self.micro_batch_size, 1, "the rows at once on a device")
        check_flag("gradient_checkpointing", self.gradient_checkpointing)
        check_flag("compile", self.compile)
        check_flag("cpu_offload", self.cpu_offload)
        check_whole("num_workers", self.num_workers, 0, "processes that read rows; 0: none")
        interval = "seconds of training between two checkpoints; 0 for none"
        check_at_least("checkpoint_every", self.checkpoint_every, 0, interval)
        check_one_of("attention", self.attention, ATTENTIONS, "how attention is computed")
        check_one_of("strategy", self.strategy, STRATEGIES, "how a model lies on the devices")
        if self.tensor_parallel is not None:
            over = f"devices that vLLM cuts a model over, of devices={self.devices}; null for most"
            check_whole("tensor_parallel", self.tensor_parallel, 1, over)
            if self.tensor_parallel > self.devices:
                raise ValueError(
                    f"tensor_parallel={self.tensor_parallel}: there are devices={self.devices}; "
                    "set runtime.execution.devices, or tensor_parallel=null for as many as divide"
                )
        self._check_sharding()
        if self.compile and self.attention == "documents":
            raise ValueError(
                "compile=true: torch.compile needs batches of one shape, and attention=documents "
                "groups the documents of each; set runtime.execution.attention=sdpa, or "
                "compile=false"
            )

    def _check_sharding(self) -> None:
        """Refuse what a strategy does not support."""
        name = self.parallelism
        if ":" in self.device and (self.devices > 1 or name in SHARDED):
            number = self.device.partition(":")[2]
            raise ValueError(
                f"device={self.device}: each rank of a stage takes a GPU of its own, and they are "
                "numbered from 0; set runtime.execution.device=cuda, and the environment variable "
                f"CUDA_VISIBLE_DEVICES={number} for the GPUs that count"
            )
        if self.compile and name in SHARDED:
            raise ValueError(
                f"compile=true: not supported where strategy={name} shards the model; "
                "set runtime.execution.compile=false, or strategy=ddp"
            )
        if self.cpu_offload and name not in SHARDED:
            raise ValueError(
                f"cpu_offload=true: strategy={self.strategy} on {self.devices} devices keeps all "
                "on the device; set runtime.execution.strategy=fsdp2 or zero3, or cpu_offload=false"
            )
        if self.cpu_offload and name == "fsdp2" and self.device == "cpu":
            raise ValueError(
                "cpu_offload=true: with strategy=fsdp2 it is for GPUs alone, a CPU's memory is the "
                "host's; set runtime.execution.cpu_offload=false"
            )

    @property
    def devices_per_node(self) -> int:
        """The devices on each machine."""
        return self.devices // self.nodes

    @property
    def parallelism(self) -> Literal["one", "ddp", "fsdp2", "zero3"]:
        """What `strategy` comes to with these devices."""
        if self.strategy == "auto":
            return "one" if self.devices == 1 else "fsdp2"
        return cast(Literal["ddp", "fsdp2", "zero3"], self.strategy)


@dataclass(frozen=True)
class Endpoint:
    """A server of the OpenAI protocol that writes questions (`endpoint` in conf/run.yaml).

    A stage that names a parameter `endpoint` receives it. The key is in no setting.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    """Its address, up to and with `/v1`."""

    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the user's key, where the server wants one."""

    concurrency: int = 8
    """Calls at once."""

    attempts: int = 6
    """How often a call is tried that the server is too busy for."""

    backoff: float = 1.0
    """Seconds before the second attempt, spread at random; twice as many before each next one."""

    timeout: float = 300.0
    """Seconds that an answer may take."""

    max_tokens: int | None = None
    """Tokens of prompts and answers that one command may use; None: no limit."""

    prompt_price: float = 0.0
    """Price of a million tokens of prompts, in the account's currency; 0: the cost is not shown."""

    answer_price: float = 0.0
    """Likewise of answers."""

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(self.key_variable)):
            raise ValueError(
                "endpoint.key_variable: must be the NAME of an environment variable, such as "
                "OPENAI_API_KEY (what was given is not shown, it may be the key itself)"
            )
        check_whole("endpoint.concurrency", self.concurrency, 1, "calls at once")
        check_whole("endpoint.attempts", self.attempts, 1, "tries of a call")
        check_positive("endpoint.backoff", self.backoff, "seconds before the second attempt")
        check_positive("endpoint.timeout", self.timeout, "seconds that an answer may take")
        if self.max_tokens is not None:
            check_whole("endpoint.max_tokens", self.max_tokens, 1, "of one command; null for most")
        check_at_least("endpoint.prompt_price", self.prompt_price, 0, "of a million tokens")
        check_at_least("endpoint.answer_price", self.answer_price, 0, "of a million tokens")

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Return what tokens cost, in the account's currency."""
        return (prompt_tokens * self.prompt_price + answer_tokens * self.answer_price) / 1e6


# Other words of W&B's variable WANDB_MODE, which conf/logger reads -> ours.
WANDB_WORDS = {"": "offline", "dryrun": "offline", "run": "online"}

MAX_TAG = 64  # characters of a tag of W&B


@dataclass(frozen=True)
class LoggerSettings:
    """Where stages and jobs are mirrored to (conf/logger)."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """`disabled`, or how Weights & Biases is used: `offline` or `online`."""

    project: str = "soaes"
    """The name of the W&B project."""

    folder: str | None = None
    """Where W&B keeps its files."""

    tags: tuple[str, ...] = ()
    """By which runs are found, such as the scale's name; some runs have more of their own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", WANDB_WORDS.get(self.mode, self.mode))
        modes = ("disabled", "offline", "online")
        check_one_of("mode", self.mode, modes, "of logger, or of WANDB_MODE if that is set")
        if not isinstance(self.project, str) or not self.project.strip():
            raise ValueError(
                f"logger.project={_word(self.project)}: must be the name of a W&B project; "
                "name one, or set logger=none"
            )
        if not isinstance(self.folder, str | None):
            raise ValueError(f"logger.folder={self.folder}: must be the path of a folder")
        if self.enabled and not self.folder:
            raise ValueError(
                f"logger.folder={self.folder}: W&B needs a folder for its files; "
                "set logger.folder, or logger=none"
            )
        if isinstance(self.tags, list):
            object.__setattr__(self, "tags", tuple(self.tags))
        if not isinstance(self.tags, tuple):
            raise ValueError(
                f"logger.tags={_word(self.tags)}: must be a list of words, e.g. [tiny]"
            )
        for tag in self.tags:
            if not isinstance(tag, str) or not 1 <= len(tag) <= MAX_TAG:
                raise ValueError(
                    f"logger.tags={_word(tag)}: W&B's tags are words of 1 to {MAX_TAG} characters"
                )

    @property
    def enabled(self) -> bool:
        """Whether anything is mirrored."""
        return self.mode != "disabled"


@dataclass(frozen=True)
class Runtime:
    """How a set of recipes is built. Plain values in, plain values out: see `from_plain`."""

    store: Path
    """The folder of all outputs."""

    execution: Execution = field(default_factory=Execution)
    """How a single stage uses the machine."""

    logger: LoggerSettings = field(default_factory=LoggerSettings)
    """Where stages and jobs are mirrored to."""

    endpoint: Endpoint = field(default_factory=Endpoint)
    """The server that writes questions."""

    hardware: Hardware = field(default_factory=Hardware)
    """What the machine has; the bill of `dry=true` counts with it."""

    expected_tokens: Mapping[str, float | None] = field(default_factory=dict)
    """Source of rows (general, corpus, dialogue, qa) -> its tokens, while they are not packed yet.

    For the bill alone; where there are none, they are estimated from the data."""

    parallel_stages: int = 1
    """Stages that run side by side."""

    exclusive_stages: tuple[str, ...] = ("speed",)
    """Stages that have the machine to themselves."""

    torchrun: tuple[str, ...] = ()
    """Stages that run as `execution.devices` ranks; every other is one process."""

    launch: str = ""
    """Words of a shell before torchrun's command, which run it on every node at once, such as
    `srun --ntasks-per-node=1`; empty: it runs here."""

    rendezvous: str = ""
    """The node where torchrun's processes meet, by a name that all nodes know; empty: this one."""

    root: str | None = None
    """The user's data folder, where there is one."""

    models: Mapping[str, str] = field(default_factory=dict)
    """The user's own models: digest of the content -> folder."""

    dry: bool = False
    """Whether to show the plan and its cost, and build nothing."""

    def __post_init__(self) -> None:
        check_whole("parallel_stages", self.parallel_stages, 1, "the stages side by side")
        _check_stages("exclusive_stages", self.exclusive_stages, sorted(STAGE_ARGUMENTS))
        _check_stages("torchrun", self.torchrun, TRAINING_STAGES)
        check_flag("dry", self.dry)
        check_launch(self.launch, self.execution.nodes)
        for source, tokens in self.expected_tokens.items():
            check_one_of("runtime.expected_tokens", source, SOURCES)
            if tokens is not None:
                check_positive(f"runtime.expected_tokens.{source}", tokens, "to be packed")

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Runtime:
        """Create a runtime from plain values, as a composed configuration or `to_plain` has them.

        Args:
            plain: Field name -> value; `execution`, `hardware` and `logger` are mappings.

        Raises:
            ValueError: A key is unknown or a value is out of its range.
        """
        values = dict(plain)
        store = values.get("store")
        if not isinstance(store, (str, Path)) or not str(store):
            raise ValueError(f"runtime.store={_word(store)}: must be the folder of all outputs")
        values["store"] = Path(store)
        execution, logger = values.get("execution"), values.get("logger")
        values["execution"] = _from_mapping(Execution, execution, "runtime.execution")
        values["logger"] = _from_mapping(LoggerSettings, logger, "logger")
        endpoint = values.get("endpoint", {})
        values["endpoint"] = _from_mapping(Endpoint, endpoint, "endpoint")
        hardware = values.get("hardware", {})
        values["hardware"] = _from_mapping(Hardware, hardware, "runtime.hardware")
        for name in ("exclusive_stages", "torchrun"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        return _from_mapping(cls, values, "runtime")

    def to_plain(self) -> dict[str, Any]:
        """Return plain values that JSON can hold and `from_plain` reads."""
        return {**asdict(self), "store": str(self.store)}


def _check_stages(name: str, value: object, stages: Sequence[str]) -> None:
    """Check that a setting is a sequence of names of stages; a bare word is not one."""
    if not isinstance(value, tuple):
        raise ValueError(f"runtime.{name}={value}: must be a list of stages, e.g. [speed]")
    for stage in value:
        check_one_of(f"runtime.{name}", stage, stages)


def check_launch(launch: object, nodes: int) -> None:
    """Check the words that start torchrun on every node.

    Raises:
        ValueError: A shell could not read them, or there are several nodes and no words.
    """
    if not isinstance(launch, str):
        raise ValueError(f"runtime.launch={_word(launch)}: must be words of a shell, or empty")
    try:
        words = shlex.split(launch)
    except ValueError as error:
        raise ValueError(f"runtime.launch={launch}: cannot be read ({error}); fix it") from None
    if nodes > 1 and not words:
        raise ValueError(
            f"runtime.execution.nodes={nodes}: nothing starts the other nodes; set runtime.launch, "
            "as in runtime.launch='srun --ntasks-per-node=1' (docs/cluster.md), or nodes=1"
        )


Settings = TypeVar("Settings")


def _from_mapping(settings: type[Settings], values: object, path: str) -> Settings:
    """Create a dataclass from a mapping; an unknown key is the user's, and is named."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}={_word(values)}: must be the settings of conf/, one by one")
    known = [known_field.name for known_field in fields(settings)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"{path}.{key}: there is no such setting; {nearest(key, known)}")
    return settings(**values)


def _word(value: object) -> str:
    return "null" if value is None else str(value)


def _check_device(device: object) -> None:
    """Check `cpu`, `cuda`, or one GPU by number."""
    if isinstance(device, str) and re.fullmatch(r"cpu|cuda(:\d+)?", device):
        return
    raise ValueError(f"device={_word(device)}: must be cpu or cuda, or one GPU as in cuda:1")


def _check_url(url: object) -> None:
    """Check an address that holds nothing but the place of a server."""
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(
            f"endpoint.base_url={_word(url)}: must be the address of a server, as in "
            "http://127.0.0.1:8000/v1"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "endpoint.base_url: must hold no user, password or query (it is not shown); put a key "
            "into the variable that endpoint.key_variable names"
        )


def first_rank() -> bool:
    """Tell whether this process is the first rank; torchrun numbers the ranks of a stage.

    A stage of one process is its own first rank.
    """
    return os.environ.get("RANK", "0") == "0"


def check_ranks(devices: int) -> None:
    """Check that every rank of a stage has been started.

    Raises:
        ValueError: There are fewer processes than devices; the first would wait for ever.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if devices > started:
        raise ValueError(
            f"devices={devices}: a stage of so many ranks is started by torchrun, here are "
            f"{started}; build it with soaes.run, or set devices={started}"
        )
