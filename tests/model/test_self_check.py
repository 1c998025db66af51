"""The self-check accepts what equals the model's own forward, and refuses all else by name."""

import pytest
import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, Qwen2ForCausalLM

from soaes.model import attention, checkpoint, self_check
from soaes.model.output_head import OutputHead
from soaes.model.soft_targets import logits_of
from soaes.pipeline.runtime import ATTENTIONS
from tests.helpers.families import SHAPE, family
from tests.helpers.toys import toy


def checked(model, name="sdpa", micro_batch_size=2):
    """Check a model as teaching does."""

    def packed_logits(ids_BT, positions_BT):
        hidden_BTD = attention.final_hidden(model, ids_BT, positions_BT)
        return logits_of(hidden_BTD.flatten(0, 1), OutputHead.of(model)).view(*ids_BT.shape, -1)

    with attention.using_attention(model, name):
        self_check.check(model, packed_logits, 48, micro_batch_size, model.device)


def causal(query, key, value, scaling, mask=None):
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2), None


def blind(module, query, key, value, attention_mask, *, scaling, **others):
    """Causal over the whole row, whatever positions say."""
    return causal(query, key, value, scaling)


def one_row_alone(module, query, key, value, attention_mask, *, scaling, position_ids, **others):
    """It knows documents in a single row, as transformers' flash attention does."""
    if len(query) > 1:
        return causal(query, key, value, scaling)
    document_T = (position_ids[0] == 0).cumsum(0)
    same_TT = document_T[:, None] == document_T[None]
    return causal(query, key, value, scaling, same_TT.tril())


@pytest.fixture(autouse=True)
def registered():
    AttentionInterface.register("blind", blind)
    AttentionInterface.register("one_row_alone", one_row_alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["documents", "sdpa", "eager"])
def test_what_is_right_is_accepted_and_nothing_of_the_run_changes(name, dtype):
    model = toy(0).to(dtype).train()
    random_state = torch.get_rng_state()
    checked(model, name)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_documents_that_see_each_other_are_refused_at_the_micro_batch_where_they_do(dtype):
    model = toy(0).to(dtype)
    checked(model, "one_row_alone", micro_batch_size=1)
    for name, rows in (("blind", 1), ("blind", 2), ("one_row_alone", 2)):
        message = f"see each other in .*qwen2 with attention={name} and {rows} rows .*=sdpa"
        with pytest.raises(ValueError, match=message):
            checked(model, name, rows)


def test_several_rows_are_given_to_a_flash_attention_as_one(monkeypatch):
    assert {"flash_attention_2", "flash_attention_3"} <= set(ATTENTIONS) & set(attention.ONE_ROW)
    monkeypatch.setattr(attention, "ONE_ROW", ("one_row_alone",))
    checked(toy(0), "one_row_alone", micro_batch_size=2)


def test_logits_that_are_more_than_we_know_are_refused():
    class Doubled(Qwen2ForCausalLM):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            output.logits = 2 * output.logits
            return output

    model = Doubled(toy(0).config).eval()
    with pytest.raises(ValueError, match="qwen2 has other logits .* model of another family"):
        checked(model)


def test_an_attention_that_leaves_something_out_is_refused():
    model = family("Gemma-2")
    for name, message in (("sdpa", "what a model of type gemma2"), ("documents", "no soft cap")):
        with pytest.raises(ValueError, match=f"{message}.*attention=eager"):
            checked(model, name)
    checked(model, "eager")


def test_layers_that_carry_a_state_are_refused(tmp_path):
    model = family("Qwen3-Next")
    with pytest.raises(
        ValueError, match="documents of a packed row see each other in .*qwen3_next"
    ):
        checked(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"qwen3_next with layers \['linear_attention'\].*take"):
        checkpoint.load(tmp_path)


def test_a_model_that_does_not_run_is_refused_by_name():
    mamba = AutoConfig.for_model("mamba", **SHAPE, vocab_size=64, state_size=4)
    model = AutoModelForCausalLM.from_config(mamba).eval()
    with pytest.raises(ValueError, match="a model of type mamba .*(take|set)"):
        checked(model, "eager")


def test_it_computes_where_the_run_does_and_not_where_weights_lie(monkeypatch):
    """As shares of weights that are kept in the memory of the host."""
    model = toy(0)
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))

    def packed_logits(ids_BT, positions_BT):
        hidden_BTD = attention.final_hidden(model, ids_BT, positions_BT)
        return logits_of(hidden_BTD.flatten(0, 1), OutputHead.of(model)).view(*ids_BT.shape, -1)

    self_check.check(model, packed_logits, 48, 2, "cpu")
