"""Loading BrainLM: a folder or `random:<name>` comes in, a module ready to use goes out (float32).

A folder holds config.json and model.safetensors or pytorch_model.bin under the released key names.
Loading is strict, because the two families share a repository and the original silently leaves
random weights where keys do not match (BRAINLM.md 0.1).
"""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256
from brainlm_bids.model.brainlm import BrainLM, time_positions
from brainlm_bids.model.config import BrainLMConfig, ModelConfig, random_architecture, read_config
from brainlm_bids.model.placement import Placement, place
from brainlm_bids.model.vitmae import ViTMAE, grid_positions

# The 13M inherits this layer from its superclass and never uses it (BRAINLM.md 1a).
ALLOWED_SURPLUS = frozenset({"decoder.decoder_pred.weight", "decoder.decoder_pred.bias"})
# Tables were computed in float32 by other versions of torch: sin(5000 rad) is good to 3e-4 there.
POSITION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LoadedModel:
    """A model and where it came from. `sha256` is that of the weight file, None if untrained."""

    module: BrainLM | ViTMAE
    family: str  # "brainlm" or "vitmae"
    config: ModelConfig
    source: str
    sha256: str | None
    untrained: bool
    n_parcels: int
    window: int  # volumes
    embedding_dim: int
    placement: Placement


def load_model(
    source: str | Path, *, seed: int, device: str = "cpu", precision: str = "float32"
) -> LoadedModel:
    """Load a checkpoint folder, or make the seeded untrained network `random:<name>`.

    `device` and `precision`: see `placement.place`. `seed` only matters for untrained networks.
    Raises UserError, naming the file, for anything that is missing, damaged or of another kind.
    """
    if str(source).startswith("random:"):
        config = random_architecture(str(source))
        module, sha256 = random_module(config, seed), None
    else:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise UserError(f"{folder}: no such model folder; give a folder with config.json")
        config = read_config(folder / "config.json")
        weights = _weight_file(folder)
        state = _read_state(weights)
        sha256 = file_sha256(weights)
        module = _assemble(config, state, weights)
    module = module.eval().requires_grad_(False)
    return LoadedModel(
        module=module,
        family=config.family,
        config=config,
        source=str(source),
        sha256=sha256,
        untrained=sha256 is None,
        n_parcels=config.n_parcels,
        window=config.window,
        embedding_dim=config.hidden_size,
        placement=place(module, device, precision),
    )


def untrained_twin(model: LoadedModel, seed: int) -> LoadedModel:
    """The same architecture in the same place with seeded random weights."""
    module = random_module(model.config, seed).eval().requires_grad_(False)
    where = model.placement
    return replace(
        model,
        module=module,
        source=f"random weights in the architecture of {model.source}",
        sha256=None,
        untrained=True,
        placement=place(module, where.device, where.precision),
    )


def build_module(config: ModelConfig) -> BrainLM | ViTMAE:
    """The module without memory for its weights (meta device); draws no random number."""
    with torch.device("meta"):
        return BrainLM(config) if isinstance(config, BrainLMConfig) else ViTMAE(config)


def position_tables(config: ModelConfig) -> dict[str, Tensor]:
    """The fixed position tables under their names in the checkpoint."""
    if isinstance(config, BrainLMConfig):
        table = time_positions(config.hidden_size)
        return {"vit.embeddings.pos_embedding.pe": table, "decoder.pos_embedding.pe": table.clone()}
    return {
        "vit.embeddings.position_embeddings": grid_positions(config.hidden_size, config.grid),
        "decoder.decoder_pos_embed": grid_positions(config.decoder_hidden_size, config.grid),
    }


def random_module(config: ModelConfig, seed: int) -> BrainLM | ViTMAE:
    """Untrained weights as the original initialises them: normal(0, initializer_range) for
    matrices and tokens, 0 for biases, 1 for the gains of LayerNorm; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    module = build_module(config)
    norms = {name for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    tables = position_tables(config)
    state: dict[str, Tensor] = {}
    for key, meta in module.state_dict().items():
        owner, _, kind = key.rpartition(".")
        if key in tables:
            state[key] = tables[key]
        elif kind == "bias":
            state[key] = torch.zeros(meta.shape)
        elif owner in norms:
            state[key] = torch.ones(meta.shape)
        else:
            draw = torch.empty(meta.shape)
            state[key] = draw.normal_(0.0, config.initializer_range, generator=generator)
    module.load_state_dict(state, strict=True, assign=True)
    return module


def _weight_file(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: holds neither model.safetensors nor pytorch_model.bin")


def _read_state(file: Path) -> dict[str, Tensor]:
    """Tensors by name. Never runs code from the file."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise UserError(f"{file}: damaged or truncated ({_line(error)}); fetch it again") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: refused, it holds more than plain tensors, or is damaged ({_line(error)})"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{file}: damaged or truncated ({_line(error)}); fetch it again") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{file}: refused, it does not hold a plain table of named tensors")
    return state


def _line(error: BaseException) -> str:
    """The first sentence of a library's message, which may go on for pages."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:120]


def _assemble(config: ModelConfig, state: dict[str, Tensor], file: Path) -> BrainLM | ViTMAE:
    _check_family(config, state, file)
    module = build_module(config)
    expected = module.state_dict()
    surplus = ALLOWED_SURPLUS if isinstance(config, BrainLMConfig) else frozenset()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys() - surplus)
    if missing or unexpected:
        raise UserError(f"{file}: {_keys('lacks', missing)}{_keys('has unexpected', unexpected)}")
    for key, meta in expected.items():
        if state[key].shape != meta.shape:
            found, wanted = tuple(state[key].shape), tuple(meta.shape)
            raise UserError(f"{file}: {key} is {found}, config.json says {wanted}")
    for key, table in position_tables(config).items():
        if not torch.allclose(state[key].float(), table, rtol=0, atol=POSITION_TOLERANCE):
            raise UserError(f"{file}: {key} is not the fixed position table; the file is damaged")
    weights = {key: state[key].float().contiguous() for key in expected}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise UserError(f"{file}: holds weights that are not finite; the file is damaged")
    module.load_state_dict(weights, strict=True, assign=True)
    return module


def _check_family(config: ModelConfig, state: dict[str, Tensor], file: Path) -> None:
    found = ""
    if "vit.embeddings.signal_embedding_projection.weight" in state:
        found = "brainlm"
    elif "vit.embeddings.patch_embeddings.projection.weight" in state:
        found = "vitmae"
    if found and found != config.family:
        raise UserError(
            f"{file}: holds weights of the {found} family, its config.json is of {config.family}"
        )


def _keys(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{what} {', '.join(keys[:3])}{rest}. "
