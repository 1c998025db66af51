"""What other libraries keep private and soaes uses is still there and still means the same.

A failure here names the library, the installed version and what to replace in
`soaes/pipeline/private_api.py`.
"""

import importlib.util
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch

from soaes.pipeline import private_api


@pytest.fixture
def require():
    """Fail with the library's version and the function to mend unless a condition holds."""

    def check(holds, library, function, gone):
        assert holds, (
            f"{library} {version(library)}: {gone}; mend private_api.{function}, or pin {library} "
            "in setup.cfg to the version before"
        )

    return check


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("rows", [2, 8], ids=["two-rows", "eight-rows"])
def test_a_packed_product_is_the_plain_product(require, rows):
    operators = ("_linear_pointwise", "_reorder_linear_weight")
    missing = [name for name in operators if not hasattr(torch.ops.mkldnn, name)]
    require(not missing, "torch", "PackedLinear", f"no operator mkldnn.{missing}")
    torch.manual_seed(0)
    weight_NK, x_TK = torch.randn(48, 32), torch.randn(rows, 32)
    product = private_api.PackedLinear(weight_NK, max_rows=8)(x_TK)
    same = torch.allclose(product, x_TK @ weight_NK.T, atol=1e-5)
    require(same, "torch", "PackedLinear", "mkldnn._linear_pointwise gives another product")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_softmax_backward_is_what_autograd_computes(require, dtype):
    exists = hasattr(torch, "_softmax_backward_data")
    require(exists, "torch", "softmax_backward", "no torch._softmax_backward_data")
    torch.manual_seed(0)
    scores = torch.randn(4, 6, dtype=dtype, requires_grad=True)
    grad = torch.randn(4, 6, dtype=dtype)
    probs = torch.softmax(scores, -1)
    (expected,) = torch.autograd.grad(probs, scores, grad)
    same = torch.equal(private_api.softmax_backward(grad, probs.detach()), expected)
    require(same, "torch", "softmax_backward", "_softmax_backward_data gives another gradient")


def test_the_attention_of_a_model_is_the_one_that_was_set(require):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=16,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = Qwen2ForCausalLM(config)
    exists = hasattr(model.config, "_attn_implementation")
    gone = "no config._attn_implementation"
    require(exists, "transformers", "attention_implementation", gone)
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        same = private_api.attention_implementation(model) == name
        require(same, "transformers", "attention_implementation", f"{gone} of the set {name}")


def test_a_trainer_counts_on_from_the_steps_it_is_given(require):
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight, self.validated_at = torch.nn.Parameter(torch.ones(1)), []

        def training_step(self, batch, index):
            return self.weight.sum() * 0

        def validation_step(self, batch, index):
            self.validated_at.append(self.trainer.global_step)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Resume(pl.Callback):
        def on_train_start(self, trainer, module):
            private_api.set_completed_steps(trainer, 5)

    module = Module()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=9,
        accumulate_grad_batches=2,
        val_check_interval=8,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[Resume()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows, function = torch.utils.data.DataLoader(torch.zeros(40, 1)), "set_completed_steps"
    try:
        trainer.fit(module, rows, rows.dataset[:1])
    except AttributeError as error:
        require(False, "pytorch-lightning", function, f"the fit loop has {error}")
    steps = trainer.global_step
    require(steps == 9, "pytorch-lightning", function, f"training ended at step {steps}, not 9")
    # 8 batches are 4 steps: with 5 behind it, it validates after step 8, not after its own 4th
    validated_at = module.validated_at
    require(
        validated_at == [8],
        "pytorch-lightning",
        function,
        f"it validated at steps {validated_at}, not at 8",
    )


def test_the_harness_has_the_templates_of_both_exams(require):
    from soaes.metrics import exams

    for template, _ in exams.TEMPLATES.values():
        exists = (private_api.exam_templates() / template).exists()
        require(exists, "lm-eval", "exam_templates", f"no task file {template}")


def test_the_harness_compiles_a_template_once(require):
    from lm_eval import utils

    exists = hasattr(getattr(utils, "env", None), "from_string")
    require(exists, "lm-eval", "cache_prompt_templates", "no lm_eval.utils.env")
    private_api.cache_prompt_templates()
    once = utils.env.from_string("{{a}}") is utils.env.from_string("{{a}}")
    require(once, "lm-eval", "cache_prompt_templates", "templates are compiled elsewhere")
    rendered = utils.apply_template("{{question}}", {"question": "1 + 1"})
    require(rendered == "1 + 1", "lm-eval", "cache_prompt_templates", "templates are not rendered")


def test_the_harness_asks_a_model_for_log_likelihoods_of_tokens(require):
    """soaes.metrics.exams.Reader overrides it; the harness would call another name in silence."""
    from lm_eval.api.model import TemplateLM

    asked = "_loglikelihood_tokens" in TemplateLM.__abstractmethods__
    assert asked, (
        f"lm-eval {version('lm-eval')}: TemplateLM has no abstract _loglikelihood_tokens; mend "
        "soaes.metrics.exams.Reader, or pin lm-eval in setup.cfg to the version before"
    )


@pytest.mark.parametrize("module", private_api.WANDB_MODULES)
def test_wandb_has_the_modules_that_are_loaded_ahead(require, module):
    exists = importlib.util.find_spec(module) is not None
    require(exists, "wandb", "WANDB_MODULES", f"no module {module}")


def test_wandb_takes_the_settings_that_keep_the_machine_out_of_a_run(require):
    try:
        settings = private_api.wandb_settings()
    except Exception as error:  # pydantic's, of whichever version
        settings = SimpleNamespace(error=error)
    names = ("x_disable_stats", "x_disable_meta", "disable_git", "disable_code")
    refused = [name for name in names if getattr(settings, name, None) is not True]
    require(not refused, "wandb", "wandb_settings", f"{refused} have no effect: {settings}")
