"""The one place that imports transformer-lens: a verified model booted whole, with hooks, its weights as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from circuit_claims.models.errors import DoesNotFit, ModelError, WeightsMismatch

if TYPE_CHECKING:
    from torch import nn
    from transformer_lens import HookedRootModule as HookedRootModule
    from transformer_lens.model_bridge import TransformerBridge

    from circuit_claims.models.files.tensors import TensorSource
    from circuit_claims.models.resolve import LocalModel

    Forward = Callable[[Any, Callable[[str, Any], Any]], Any]

# Activations of a few short texts, and what the libraries take beside the weights.
WORKING_ROOM = 1_000_000_000
WEIGHTS_FACTOR = 1.2


def memory_needed(model: LocalModel) -> int:
    """Bytes a booted model takes in fp32: its weights, a fifth more for copies on the way, and room to work."""
    return int(WEIGHTS_FACTOR * model.weights_bytes) + WORKING_ROOM


def memory_free(device: str) -> int:
    """Bytes that can be taken on `device` now: of the accelerator's own memory for CUDA, else of the machine's."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def check_fits(model: LocalModel, device: str) -> None:
    """Raise `DoesNotFit`, stating need and have, if the model would not fit on `device` now."""
    need, have = memory_needed(model), memory_free(device)
    if have < need:
        raise DoesNotFit(
            f"{model.name} does not fit on {device}\n  needs {need / 1e9:.1f} GB ({model.weights_bytes / 1e9:.1f} GB of"
            f" fp32 weights and room to work)\n  found {have / 1e9:.1f} GB free"
            "\n  Type: --device cpu, or choose a smaller subject with --subjects"
        )


def boot(
    model: LocalModel, device: str = "cpu", *, text: bool = True, instead: TensorSource | None = None
) -> TransformerBridge:
    """The whole model with transformer-lens' hooks, in fp32 on `device`, after every byte of its files was verified.

    Weights are raw: nothing is folded or centred (`enable_compatibility_mode` is not called), attention is `eager` so
    that patterns can be hooked. Never pass the result through `torch.func.functional_call` or vmap: on a bridge these
    corrupt the weights silently. Without `text` it takes token ids alone: to read a vocabulary of 262,000 twice, as
    transformer-lens does, is seconds of work. `instead` gives other weights of the same names and shapes, for controls.

    Raises `DoesNotFit` before anything is loaded, `DamagedWeights` for changed files, and `WeightsMismatch` if
    transformers finds missing, unexpected or mismatched keys.
    """
    if not model.manifest.tensors:
        raise ModelError(f"{model.name} is a tokenizer without weights: expected a model with weights to boot")
    check_fits(model, device)
    model = model.verify()
    with quiet_loading():
        from transformer_lens.model_bridge import TransformerBridge

        weights = _load(model)
        if instead is not None:
            _put(weights, instead)
        tokenizer = _tokenizer(model) if text else _no_tokenizer()
        return TransformerBridge.boot_transformers(
            str(model.folder), hf_model=weights.to(device), tokenizer=tokenizer, device=device
        )


def load_plain(model: LocalModel, device: str = "cpu", attention: str = "sdpa") -> Any:
    """The transformers model itself, in fp32 and evaluation mode on `device`: for passes that set their own few hooks.

    `attention` names an attention function that transformers knows. Checks and errors are those of `boot`.
    """
    if not model.manifest.tensors:
        raise ModelError(f"{model.name} is a tokenizer without weights: expected a model with weights to run")
    check_fits(model, device)
    model = model.verify()
    with quiet_loading():
        return _load(model, attention).to(device)


def _tokenizer(model: LocalModel) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(str(model.folder), trust_remote_code=False, local_files_only=True)


def _no_tokenizer() -> Any:
    """A tokenizer of one word, since transformer-lens reads the folder's where it is given none."""
    import tokenizers
    import transformers

    words = tokenizers.models.WordLevel({"?": 0}, "?")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(words))


def _load(model: LocalModel, attention: str = "eager") -> Any:
    import torch
    import transformers

    # Typed as an unbound method; what it returns hangs on `output_loading_info`.
    from_pretrained: Any = transformers.AutoModelForCausalLM.from_pretrained
    weights: Any
    weights, info = from_pretrained(
        str(model.folder),
        dtype=torch.float32,
        attn_implementation=attention,
        output_loading_info=True,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    wrong = {kind: sorted(map(str, keys))[:4] for kind, keys in info.items() if keys}
    if wrong:
        raise WeightsMismatch(f"transformers could not place every tensor of {model.name}: {wrong}")
    # transformer-lens chooses its adapter by this key, which configs read from GGUF may lack.
    weights.config.architectures = [type(weights).__name__]
    return weights.eval()


def _put(weights: Any, tensors: TensorSource) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in weights.named_parameters():
            parameter.copy_(tensors.read(name))


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' own bars, which would be drawn over ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def on_hook_points(model: nn.Module, names: Sequence[str], forward: Forward) -> HookedRootModule:
    """A model on transformer-lens' hook points called `names`, for `run_with_hooks` and `run_with_cache`.

    `forward(inputs, visit)` computes the logits and shows each intermediate to `visit(name, tensor)`, going on with
    what that returns. The module holds `model` itself, not a copy: what changes there shows here.
    """
    from torch.nn import ModuleDict
    from transformer_lens import HookedRootModule
    from transformer_lens.hook_points import HookPoint

    class Hooked(HookedRootModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            for name in names:
                _plant(self._modules, name.split("."), HookPoint(), ModuleDict)
            self.setup()

        def forward(self, inputs: Any) -> Any:
            return forward(inputs, lambda name, tensor: self.hook_dict[name](tensor))

    return Hooked()


def _plant(modules: Any, path: list[str], leaf: Any, folder: Any) -> None:
    for part in path[:-1]:
        if part not in modules:
            modules[part] = folder()
        modules = modules[part]
    modules[path[-1]] = leaf
