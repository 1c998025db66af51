"""Settings of adoption that conf/ builds. They are checked when a job is composed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from soaes.pipeline.validation import check_in_range, check_one_of, check_seed

Undecided = Literal["leave_out", "train"]


@dataclass(frozen=True)
class AdoptionSettings:
    """What becomes of reviewed items (conf/data/files.yaml).

    Attributes:
        undecided: What becomes of items that nobody decided on: `leave_out`, or `train`, where a
            sample of them was reviewed; the data card has the share of errors that this may bring.
        dev_share: Share of each task in dev.
        test_share: Share of each task in test; train has the rest.
        seed: Decides which families of documents go where.
    """

    undecided: Undecided = "leave_out"
    dev_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of("adoption.undecided", self.undecided, get_args(Undecided))
        check_in_range("adoption.dev_share", self.dev_share, "(0, 1)", "of each task")
        check_in_range("adoption.test_share", self.test_share, "(0, 1)", "of each task")
        if self.dev_share + self.test_share >= 1:
            raise ValueError(
                f"adoption.dev_share={self.dev_share}: must be less than 1 together with "
                f"test_share={self.test_share}; the rest is for train"
            )
        check_seed(self.seed)
