"""Load BrainLM from a folder, or make an untrained network `random:<name>`.

A folder holds config.json and model.safetensors or pytorch_model.bin, with the released names of
parameters. Loading is strict: the two families are in one repository, and the original code leaves
random weights, without a warning, wherever the names do not match.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
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
from brainlm_bids.model.families import BrainLMNetwork, ViTMAENetwork
from brainlm_bids.model.network import Network
from brainlm_bids.model.placement import Placement, place
from brainlm_bids.model.weight_files import read_tensors

# The network of each architecture: the only place that distinguishes the families.
NETWORKS: dict[type[BrainLMConfig] | type[ViTMAEConfig], Any] = {
    BrainLMConfig: BrainLMNetwork,
    ViTMAEConfig: ViTMAENetwork,
}
# The stored tables were computed in float32 by other versions of torch, where sin(5000 rad) is
# accurate to 3e-4.
POSITION_TOLERANCE = 1e-3
ALIGNMENT = 64  # bytes, of tensors that torch allocates


@dataclass(frozen=True)
class LoadedModel:
    """A network, its origin, and where it runs.

    Attributes
    ----------
    network
        The network; every computation goes through it.
    source
        The folder, or `random:<name>`.
    sha256
        Checksum of the weight file; None if the network is untrained.
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
        """Number of parcels of a window."""
        return self.config.n_parcels

    @property
    def window(self) -> int:
        """Number of volumes of a window."""
        return self.config.window

    @property
    def embedding_dim(self) -> int:
        """Number of dimensions D of a latent."""
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
        Seed of the weights of an untrained network; without effect for a checkpoint.
    device, precision
        See `placement.place`.

    Returns
    -------
    LoadedModel
        All weights in float32, frozen, in evaluation mode.

    Raises
    ------
    UserError
        If anything is missing, damaged or of another kind; the message names the file.

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
        network, weights = _network_of(folder)
        sha256 = file_sha256(weights)
    network.module.eval().requires_grad_(False)
    return LoadedModel(network, str(source), sha256, place(network.module, device, precision))


def check_checkpoint(folder: Path) -> None:
    """Raise UserError, as `load_model` does, if a checkpoint cannot be loaded.

    Its weights are looked at where they lie in the file, so that they take no memory.

    Parameters
    ----------
    folder
        With config.json and the weights.
    """
    _network_of(folder, mapped=True)


def _network_of(folder: Path, *, mapped: bool = False) -> tuple[Network, Path]:
    """The network of a folder, and the file of its weights."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; give a folder with config.json")
    config = read_config(folder / "config.json")
    weights = _weight_file(folder)
    return _assemble(config, read_tensors(weights, mapped=mapped), weights), weights


def control_seed(seed: int) -> int:
    """Seed of the random weights of a model's control.

    It is not that of the call, so that the control of a random model is another draw.

    Parameters
    ----------
    seed
        Seed of the call.

    Returns
    -------
    int
        Seed of the control.

    Examples
    --------
    >>> control_seed(42)
    43
    """
    return seed + 1


def untrained_twin(model: LoadedModel, seed: int) -> LoadedModel:
    """Make the same architecture on the same device, with random weights.

    Parameters
    ----------
    model
        The model.
    seed
        Seed of the weights; that of a call's control is `control_seed` of the call's.

    Returns
    -------
    LoadedModel
        The untrained network.
    """
    network = random_network(model.config, seed)
    network.module.eval().requires_grad_(False)
    placement = model.placement
    return replace(
        model,
        network=network,
        source=f"random weights in the architecture of {model.source}",
        sha256=None,
        placement=place(network.module, placement.device, placement.precision),
    )


def build_network(config: ModelConfig) -> Network:
    """Build a network without memory for its weights (meta device); no random number is drawn.

    Parameters
    ----------
    config
        The architecture.

    Returns
    -------
    Network
        The network.
    """
    with torch.device("meta"):
        return network_over(config)


def network_over(config: ModelConfig, module: nn.Module | None = None) -> Network:
    """Build the network of an architecture.

    Parameters
    ----------
    config
        The architecture.
    module
        A torch module to use; None to make one.

    Returns
    -------
    Network
        The network.
    """
    network: Network = NETWORKS[type(config)](config, module)
    return network


def random_network(config: ModelConfig, seed: int) -> Network:
    """Make an untrained network, initialised as in the original.

    Matrices and tokens are drawn from a normal distribution of mean 0 and standard deviation
    `initializer_range`, biases are 0, and the gains of LayerNorm are 1.

    Parameters
    ----------
    config
        The architecture.
    seed
        Seed of the weights.

    Returns
    -------
    Network
        The network.
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
    raise UserError(f"{folder}: has neither model.safetensors nor pytorch_model.bin")


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
            shape, expected_shape = tuple(state[key].shape), tuple(meta.shape)
            raise UserError(f"{file}: {key} is {shape}, config.json says {expected_shape}")
        if not state[key].is_floating_point():
            raise UserError(f"{file}: {key} is of the type {state[key].dtype}, not a real number")
    for key, table in network.fixed_tensors().items():
        if not torch.allclose(state[key].float(), table, rtol=0, atol=POSITION_TOLERANCE):
            raise UserError(f"{file}: {key} is not the fixed position table; the file is damaged")
    weights = {key: _aligned(state[key].float().contiguous()) for key in expected}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise UserError(f"{file}: contains weights that are not finite; the file is damaged")
    network.module.load_state_dict(weights, strict=True, assign=True)
    return network


def _aligned(tensor: Tensor) -> Tensor:
    """The same values where torch would place them.

    Tensors of a .safetensors lie wherever its header ends. Products of small matrices are rounded
    in another order there, and the same weights from another file would give other last digits.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def _check_family(config: ModelConfig, state: dict[str, Tensor], file: Path) -> None:
    """Compare the architecture with the parameters that only one family has."""
    if NETWORKS[type(config)].landmark in state:
        return
    for other, network in NETWORKS.items():
        if network.landmark in state:
            raise UserError(
                f"{file}: contains weights of the {other.family} family, but its config.json is of "
                f"{config.family}"
            )


def _keys(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    # the file may hold any names
    shown = [key.encode("unicode_escape").decode()[:80] for key in keys[:3]]
    return f"{what} {', '.join(shown)}{rest}. "
