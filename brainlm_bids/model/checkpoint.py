"""Loading BrainLM from a folder, or as an untrained network `random:<name>`.

A folder holds config.json and model.safetensors or pytorch_model.bin under the released names of
parameters. Loading is strict: the two families lie in one repository, and the original leaves
random weights wherever the names do not match, without a word.
"""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256
from brainlm_bids.model.config import (
    BrainLMConfig,
    ModelConfig,
    ViTMAEConfig,
    random_architecture,
    read_config,
)
from brainlm_bids.model.network import BrainLMNetwork, Network, ViTMAENetwork
from brainlm_bids.model.placement import Placement, place

# Which network an architecture describes: the only place where a family is told from another.
NETWORKS: dict[type[BrainLMConfig] | type[ViTMAEConfig], Any] = {
    BrainLMConfig: BrainLMNetwork,
    ViTMAEConfig: ViTMAENetwork,
}
# Tables were computed in float32 by other versions of torch: sin(5000 rad) is good to 3e-4 there.
POSITION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LoadedModel:
    """A network, where it came from, and where it runs.

    Attributes
    ----------
    network
        The network; every computation goes through it.
    source
        The folder, or `random:<name>`.
    sha256
        Of the weight file; None if the network is untrained.
    placement
        Device, precision and batch size.
    """

    network: Network
    source: str
    sha256: str | None
    placement: Placement

    @property
    def module(self) -> nn.Module:
        """The torch module."""
        return self.network.module

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return self.network.config

    @property
    def family(self) -> str:
        """The name of the family, for sidecars."""
        return self.config.family

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return self.sha256 is None

    @property
    def n_parcels(self) -> int:
        """Parcels of a window."""
        return self.config.n_parcels

    @property
    def window(self) -> int:
        """Volumes of a window."""
        return self.config.window

    @property
    def embedding_dim(self) -> int:
        """Dimensions D of a latent."""
        return self.config.hidden_size


def load_model(
    source: str | Path, *, seed: int, device: str = "cpu", precision: str = "float32"
) -> LoadedModel:
    """Load a checkpoint folder, or make the untrained network `random:<name>`.

    Parameters
    ----------
    source
        A folder with config.json and weights, or `random:<name>` with a name of
        `config.ARCHITECTURES`.
    seed
        Of the weights of an untrained network; it does not matter for a checkpoint.
    device, precision
        See `placement.place`.

    Returns
    -------
    LoadedModel
        With all weights in float32, frozen, in evaluation mode.

    Raises
    ------
    UserError
        Naming the file, for anything that is missing, damaged or of another kind.

    Examples
    --------
    >>> model = load_model("random:tiny", seed=0)
    >>> model.n_parcels, model.window, model.embedding_dim, model.untrained
    (424, 200, 32, True)
    """
    if str(source).startswith("random:"):
        network, sha256 = random_network(random_architecture(str(source)), seed), None
    else:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise UserError(f"{folder}: no such model folder; give a folder with config.json")
        config = read_config(folder / "config.json")
        weights = _weight_file(folder)
        network = _assemble(config, _read_state(weights), weights)
        sha256 = file_sha256(weights)
    network.module.eval().requires_grad_(False)
    return LoadedModel(network, str(source), sha256, place(network.module, device, precision))


def untrained_twin(model: LoadedModel, seed: int) -> LoadedModel:
    """The same architecture in the same place with seeded random weights."""
    network = random_network(model.config, seed)
    network.module.eval().requires_grad_(False)
    where = model.placement
    return replace(
        model,
        network=network,
        source=f"random weights in the architecture of {model.source}",
        sha256=None,
        placement=place(network.module, where.device, where.precision),
    )


def build_network(config: ModelConfig) -> Network:
    """A network without memory for its weights (meta device); draws no random number."""
    with torch.device("meta"):
        return network_over(config)


def network_over(config: ModelConfig, module: nn.Module | None = None) -> Network:
    """The network that an architecture describes, over a new module or over a given one."""
    network: Network = NETWORKS[type(config)](config, module)
    return network


def random_network(config: ModelConfig, seed: int) -> Network:
    """An untrained network, initialised as in the original.

    Matrices and tokens are drawn from a normal distribution of mean 0 and standard deviation
    `initializer_range`, biases are 0, and the gains of LayerNorm are 1. The same seed gives the
    same weights.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build_network(config)
    module = network.module
    norms = {name for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    tables = network.fixed_tensors()
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
    return network


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


def _assemble(config: ModelConfig, state: dict[str, Tensor], file: Path) -> Network:
    _check_family(config, state, file)
    network = build_network(config)
    expected = network.module.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys() - network.unused_tensors().keys())
    if missing or unexpected:
        raise UserError(f"{file}: {_keys('lacks', missing)}{_keys('has unexpected', unexpected)}")
    for key, meta in expected.items():
        if state[key].shape != meta.shape:
            shape, wanted = tuple(state[key].shape), tuple(meta.shape)
            raise UserError(f"{file}: {key} is {shape}, config.json says {wanted}")
    for key, table in network.fixed_tensors().items():
        if not torch.allclose(state[key].float(), table, rtol=0, atol=POSITION_TOLERANCE):
            raise UserError(f"{file}: {key} is not the fixed position table; the file is damaged")
    weights = {key: state[key].float().contiguous() for key in expected}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise UserError(f"{file}: holds weights that are not finite; the file is damaged")
    network.module.load_state_dict(weights, strict=True, assign=True)
    return network


def _check_family(config: ModelConfig, state: dict[str, Tensor], file: Path) -> None:
    """Compare the architecture with the parameters that only one family has."""
    if NETWORKS[type(config)].landmark in state:
        return
    for other, network in NETWORKS.items():
        if network.landmark in state:
            raise UserError(
                f"{file}: holds weights of the {other.family} family, its config.json is of "
                f"{config.family}"
            )


def _keys(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{what} {', '.join(keys[:3])}{rest}. "
