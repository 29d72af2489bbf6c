"""The architectures of BrainLM, as checked dataclasses that are read from a `config.json`.

Two unrelated networks were published under the name BrainLM: a transformer whose tokens are pairs
of a parcel and a time patch (13M), and a masked autoencoder over the picture of a recording (111M,
650M). docs/reference/networks.md describes both. This module does not import torch, so that a
checkpoint can be checked before anything heavy is loaded.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.parcels import N_PARCELS

WINDOW = 200  # volumes that a window holds in training
# What the training data of the image models were divided by after robust scaling
# (vandijklab/BrainLM at b591d88, see docs/reference/constants.md).
VITMAE_DIVISOR = 5.6430855
POSITION_ROWS = 5000  # rows of the 13M's table of time positions (modeling_brainlm.py, line 22)


@dataclass(frozen=True)
class BrainLMConfig:
    """The architecture of the 13M family; the field names are those of its `config.json`."""

    family: ClassVar[str] = "brainlm"
    model_type: ClassVar[str] = "brainlm_mae"
    # Learning rate and weight decay of the training record (trainer_state.json) of old_13M.
    peak_learning_rate: ClassVar[float] = 5e-3
    default_weight_decay: ClassVar[float] = 1e-5
    # Keys of the released config.json that are not fields here.
    constants: ClassVar[Mapping[str, Any]] = {
        "model_type": "brainlm_mae",
        "architectures": ["BrainLMForPretraining"],
        "attention_probs_dropout_prob": 0.1,  # declared, never applied
        "segment_means_seq_len": 64,  # equal to num_landmarks: full attention, see `check`
        "num_landmarks": 64,
        "inv_coeff_init_option": False,
        "image_size": 224,
        "patch_size": 16,
        "num_channels": 3,
    }

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    decoder_hidden_size: int
    decoder_num_hidden_layers: int
    decoder_num_attention_heads: int
    decoder_intermediate_size: int
    num_brain_voxels: int
    num_timepoints_per_voxel: int
    timepoint_patching_size: int
    conv_kernel_size: int
    layer_norm_eps: float
    mask_ratio: float
    initializer_range: float = 0.02
    use_tanh_decoder: bool = False
    loss_fn: str = "mse"

    @property
    def n_parcels(self) -> int:
        """Number of parcels of a window."""
        return self.num_brain_voxels

    @property
    def window(self) -> int:
        """Number of volumes of a window."""
        return self.num_timepoints_per_voxel

    @property
    def grid(self) -> tuple[int, int]:
        """Rows (parcels) and columns (time patches) of the tokens of a window."""
        return self.num_brain_voxels, self.num_timepoints_per_voxel // self.timepoint_patching_size

    @property
    def n_tokens(self) -> int:
        """Number of tokens of a window."""
        return self.grid[0] * self.grid[1]

    def check(self, content: Mapping[str, Any], file: Path) -> None:
        """Raise UserError, naming `file`, for a network that would not be built exactly."""
        # The original calls the Nyströmformer of transformers, which computes ordinary softmax
        # attention exactly when these two are equal; otherwise it approximates.
        if content.get("num_landmarks") != content.get("segment_means_seq_len"):
            raise UserError(
                f"{file}: num_landmarks differs from segment_means_seq_len: not supported"
            )
        if self.decoder_hidden_size != self.hidden_size:
            raise UserError(f"{file}: decoder_hidden_size must equal hidden_size in this family")
        if self.num_timepoints_per_voxel % self.timepoint_patching_size:
            raise UserError(f"{file}: the window is not a whole number of time patches")
        if self.grid[1] > POSITION_ROWS:
            raise UserError(f"{file}: more than {POSITION_ROWS} time patches in a window")
        if self.conv_kernel_size % 2 == 0:
            raise UserError(f"{file}: conv_kernel_size must be odd")
        if self.loss_fn not in ("mse", "mae"):
            raise UserError(f"{file}: loss_fn is {self.loss_fn!r}; expected mse or mae")


@dataclass(frozen=True)
class ViTMAEConfig:
    """The architecture of the image family; the field names are those of its `config.json`."""

    family: ClassVar[str] = "vitmae"
    model_type: ClassVar[str] = "vit_mae"
    # Learning rate of the training record (trainer_state.json) of vitmae_650M; the weight decay is
    # the default of the original's train.py.
    peak_learning_rate: ClassVar[float] = 5e-4
    default_weight_decay: ClassVar[float] = 0.05
    loss_fn: ClassVar[str] = "mse"
    constants: ClassVar[Mapping[str, Any]] = {
        "model_type": "vit_mae",
        "architectures": ["ViTMAEForPreTraining"],
        "attention_probs_dropout_prob": 0.0,
    }

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    decoder_hidden_size: int
    decoder_num_hidden_layers: int
    decoder_num_attention_heads: int
    decoder_intermediate_size: int
    image_size: tuple[int, int]
    patch_size: int
    num_channels: int
    layer_norm_eps: float
    mask_ratio: float
    initializer_range: float = 0.02
    qkv_bias: bool = True
    train_mode: str = "auto_encode"  # the released files lack this key

    @property
    def n_parcels(self) -> int:
        """Number of parcels of a window."""
        return N_PARCELS

    @property
    def window(self) -> int:
        """Number of volumes of a window."""
        return WINDOW

    @property
    def grid(self) -> tuple[int, int]:
        """Rows (along the parcels) and columns (along time) of the patches of a picture."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def n_tokens(self) -> int:
        """Number of tokens of a window."""
        return self.grid[0] * self.grid[1]

    def check(self, content: Mapping[str, Any], file: Path) -> None:
        """Raise UserError, naming `file`, for a network that would not be built exactly."""
        height, width = self.image_size
        if height % self.patch_size or width % self.patch_size or height != width:
            raise UserError(f"{file}: image_size must be square and a multiple of patch_size")
        if self.hidden_size % 4 or self.decoder_hidden_size % 4:
            raise UserError(
                f"{file}: widths must be multiples of 4 (2-D sine and cosine positions)"
            )


ModelConfig = BrainLMConfig | ViTMAEConfig
CONFIGS: dict[str, type[BrainLMConfig] | type[ViTMAEConfig]] = {
    kind.model_type: kind for kind in (BrainLMConfig, ViTMAEConfig)
}

# The released architectures, and two small ones. The number of heads of the 650M is inferred: all
# of its other sizes are those of ViT-MAE huge.
ARCHITECTURES: dict[str, ModelConfig] = {
    "tiny": BrainLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        num_brain_voxels=N_PARCELS,
        num_timepoints_per_voxel=WINDOW,
        timepoint_patching_size=20,
        conv_kernel_size=65,
        layer_norm_eps=1e-12,
        mask_ratio=0.2,
    ),
    # Long time patches, one head: attention over 1,696 tokens is what a CPU can train in an hour.
    "demo": BrainLMConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=128,
        decoder_hidden_size=64,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=1,
        decoder_intermediate_size=128,
        num_brain_voxels=N_PARCELS,
        num_timepoints_per_voxel=WINDOW,
        timepoint_patching_size=50,
        conv_kernel_size=65,
        layer_norm_eps=1e-12,
        mask_ratio=0.5,
    ),
    "13M": BrainLMConfig(
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        decoder_hidden_size=512,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=1024,
        num_brain_voxels=N_PARCELS,
        num_timepoints_per_voxel=WINDOW,
        timepoint_patching_size=20,
        conv_kernel_size=65,
        layer_norm_eps=1e-12,
        mask_ratio=0.2,
    ),
    "111M": ViTMAEConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        decoder_hidden_size=512,
        decoder_num_hidden_layers=8,
        decoder_num_attention_heads=16,
        decoder_intermediate_size=2048,
        image_size=(432, 432),
        patch_size=16,
        num_channels=3,
        layer_norm_eps=1e-12,
        mask_ratio=0.75,
    ),
    "650M": ViTMAEConfig(
        hidden_size=1280,
        num_hidden_layers=32,
        num_attention_heads=16,
        intermediate_size=5120,
        decoder_hidden_size=512,
        decoder_num_hidden_layers=8,
        decoder_num_attention_heads=16,
        decoder_intermediate_size=2048,
        image_size=(434, 434),
        patch_size=14,
        num_channels=3,
        layer_norm_eps=1e-12,
        mask_ratio=0.75,
    ),
}


def random_architecture(source: str) -> ModelConfig:
    """Return the architecture of `random:<name>`.

    Parameters
    ----------
    source
        The name, with or without `random:`.

    Returns
    -------
    ModelConfig
        The architecture.

    Raises
    ------
    UserError
        If there is no architecture of this name.
    """
    name = source.removeprefix("random:")
    if name not in ARCHITECTURES:
        known = ", ".join(f"random:{known}" for known in ARCHITECTURES)
        raise UserError(f"{source}: no such architecture; known are {known}")
    return ARCHITECTURES[name]


def read_config(file: Path) -> ModelConfig:
    """Read and check the `config.json` of a checkpoint.

    Parameters
    ----------
    file
        The file.

    Returns
    -------
    ModelConfig
        The architecture.

    Raises
    ------
    UserError
        If it is missing, truncated, of an unknown family, or describes a network that this
        implementation does not build exactly; the message names the file.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found; a model folder needs config.json and weights")
    content = read_json(file)
    kind = CONFIGS.get(str(content.get("model_type")))
    if kind is None:
        known = " or ".join(CONFIGS)
        raise UserError(
            f"{file}: model_type is {content.get('model_type')!r}; BrainLM's are {known}"
        )
    config = _from_dict(kind, content, file)
    _check_common(config, content, file)
    config.check(content, file)
    return config


# Widths and numbers of tokens are below, and so is everything else of the released networks.
_LARGEST_NUMBER, _MOST_LAYERS = 10_000_000, 1_000

# Keys that the released config.json of both families hold and that are not fields here.
_ALWAYS: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "norm_pix_loss": False,
    "qkv_bias": True,
    "torch_dtype": "float32",
}


def config_content(config: ModelConfig) -> dict[str, Any]:
    """Return the `config.json` of a checkpoint in the released layout; `read_config` reads it back.

    Parameters
    ----------
    config
        The architecture.

    Returns
    -------
    dict
        Content of the file.
    """
    return {**_ALWAYS, **config.constants, **asdict(config)}


def _from_dict(
    kind: type[BrainLMConfig] | type[ViTMAEConfig], content: dict[str, Any], file: Path
) -> ModelConfig:
    """Fill the dataclass; a key without a default must be there and have the right type."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in content:
            continue
        value = content[field.name]
        if field.name == "image_size" and isinstance(value, int):
            value = [value, value]
        values[field.name] = _typed(field.name, field.type, value, file)
    required = {field.name for field in fields(kind) if field.default is dataclasses.MISSING}
    missing = sorted(required - set(values))
    if missing:
        raise UserError(f"{file}: lacks {', '.join(missing)}; it is not a complete BrainLM config")
    return kind(**values)


def _typed(name: str, kind: Any, value: Any, file: Path) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_number = is_number and abs(value) <= _LARGEST_NUMBER
    if kind is int and is_number and value == int(value) and value > 0:
        if not name.endswith("layers") or value <= _MOST_LAYERS:
            return int(value)
    elif kind is float and is_number:
        return float(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if name == "image_size" and isinstance(value, list | tuple) and len(value) == 2:
        return _typed(name, int, value[0], file), _typed(name, int, value[1], file)
    raise UserError(f"{file}: {name} is {value!r:.80}, which is not valid")


def _check_common(config: ModelConfig, content: dict[str, Any], file: Path) -> None:
    if content.get("hidden_act", "gelu") != "gelu":
        raise UserError(f"{file}: hidden_act is {content['hidden_act']!r}; only gelu is known")
    if content.get("norm_pix_loss", False):
        raise UserError(f"{file}: norm_pix_loss is set; no released BrainLM uses it")
    for width, heads in (
        (config.hidden_size, config.num_attention_heads),
        (config.decoder_hidden_size, config.decoder_num_attention_heads),
    ):
        if width % heads:
            raise UserError(f"{file}: a width of {width} does not divide into {heads} heads")
    if not 0 <= config.mask_ratio < 1:
        raise UserError(f"{file}: mask_ratio is {config.mask_ratio}; expected 0 ≤ ratio < 1")
