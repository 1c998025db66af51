"""What a machine has: cards by name, a container's memory, the rate of a processor."""

import pytest

from soaes.pipeline import hardware
from soaes.pipeline.hardware import CARDS


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA A800-SXM4-80GB", "A800-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIE-80GB"),
        ("NVIDIA A800 80GB PCIe", "A800-PCIE-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIE-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H200 NVL", "H200-NVL"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA H200", "H200"),
        ("Tesla V100-SXM2-16GB", None),
    ],
    ids=lambda value: str(value),
)
def test_cards_are_known_by_the_names_of_nvidia_smi(name, card):
    assert hardware.card_named(name) == CARDS.get(card)


def test_a_card_is_slower_in_float32_and_by_pcie():
    for card in CARDS.values():
        assert 1 < card.tflops / card.tflops_float32 <= 1 / hardware.FLOAT32_SHARE == 16
    for name in ("A100", "A800", "H100"):
        by_pcie, sxm = CARDS[f"{name}-PCIE-80GB"], CARDS[f"{name}-80GB"]
        assert by_pcie.gb_per_s < sxm.gb_per_s and by_pcie.tflops <= sxm.tflops


def test_a_container_has_the_memory_of_its_limit(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:  8000 kB\n")
    monkeypatch.setattr(hardware, "MEMINFO", meminfo)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    assert hardware.whole_memory() == 9000 << 10
    (tmp_path / "memory.max").write_text("1000000\n")
    assert hardware.whole_memory() == 1_000_000
    monkeypatch.setattr(hardware, "MEMINFO", tmp_path / "none")
    assert hardware.whole_memory() is None


def test_the_rate_of_a_product_is_timed_or_not_known(monkeypatch):
    hardware.product_rate.cache_clear()
    rate = hardware.product_rate(1)
    assert 1e8 < rate < 1e13
    hardware.product_rate.cache_clear()
    monkeypatch.setattr(hardware, "PRODUCT", "raise SystemExit(1)")
    assert hardware.product_rate(1) is None
    hardware.product_rate.cache_clear()
