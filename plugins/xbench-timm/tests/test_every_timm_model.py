"""Build every architecture of timm, which takes about ten minutes."""

from __future__ import annotations

import pytest

timm = pytest.importorskip("timm")
pytest.importorskip("xbench_timm")

import torch  # noqa: E402
from xbench import XbenchError  # noqa: E402

from xbench_timm.members import make_spec  # noqa: E402
from xbench_timm.network import build_outline, find_classifier  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def test_every_architecture_but_seven_encoders_has_a_classifier():
    refused = {}
    for name in timm.list_models():
        try:
            make_spec(name)
        except XbenchError as error:
            refused[name] = error.message
            continue
        network = build_outline(name)
        with torch.device("meta"):
            network.reset_classifier(2)
        parts = find_classifier(network)
        assert parts, name
        parameters = [key for key, _ in network.named_parameters()]
        assert all(any(key.startswith(f"{part}.") for key in parameters) for part in parts), name
    assert refused.keys() == {
        "deepseek_vit_412m_enc",
        "gemma4_vit_167m_enc",
        "gemma4_vit_570m_enc",
        "mobilenetv5_300m_enc",
        "qwen3_vit_88m_enc",
        "qwen3_vit_306m_enc",
        "qwen3_vit_416m_enc",
    }
    assert all("without a classifier" in message for message in refused.values())
