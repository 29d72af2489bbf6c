"""Architectures and names of BrainLM: a config.json comes in, a dataclass goes out. No torch.

Two unrelated networks are called BrainLM (BRAINLM.md 1a, 1b): `brainlm`, a transformer over
(parcel, time patch) tokens (13M), and `vitmae`, a masked autoencoder over the 424 × 200 picture of
a recording (111M, 650M). Sizes are in tokens, channels and volumes; times in seconds.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.parcels import N_PARCELS

WINDOW = 200  # volumes that a window holds in training
MODEL_TR = 0.735  # s, UK Biobank's repetition time, the bulk of the training data
VITMAE_DIVISOR = 5.6430855  # what the image models' robust series was divided by (BRAINLM.md 0.7)
POSITION_ROWS = 5000  # rows of the 13M's table of time positions


@dataclass(frozen=True)
class BrainLMConfig:
    """The 13M family (`model_type: brainlm_mae`); field names are those of its config.json."""

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
    def family(self) -> str:
        return "brainlm"

    @property
    def n_parcels(self) -> int:
        return self.num_brain_voxels

    @property
    def window(self) -> int:
        return self.num_timepoints_per_voxel

    @property
    def n_patches(self) -> int:
        """Time patches of a full window."""
        return self.num_timepoints_per_voxel // self.timepoint_patching_size


@dataclass(frozen=True)
class ViTMAEConfig:
    """The image family (`model_type: vit_mae`); field names are those of its config.json."""

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
    train_mode: str = "auto_encode"  # the released files lack the key (BRAINLM.md 1b)

    @property
    def family(self) -> str:
        return "vitmae"

    @property
    def n_parcels(self) -> int:
        return N_PARCELS

    @property
    def window(self) -> int:
        return WINDOW

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along the parcels and along time."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size


ModelConfig = BrainLMConfig | ViTMAEConfig
FAMILIES: dict[str, type[BrainLMConfig] | type[ViTMAEConfig]] = {
    "brainlm_mae": BrainLMConfig,
    "vit_mae": ViTMAEConfig,
}

# BRAINLM.md 1a and 1b: the released architectures; heads of the 650M are those of ViT-MAE huge.
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
    """The architecture of `random:<name>`. Raises UserError for a name that is not known."""
    name = source.removeprefix("random:")
    if name not in ARCHITECTURES:
        known = ", ".join(f"random:{known}" for known in ARCHITECTURES)
        raise UserError(f"{source}: no such architecture; known are {known}")
    return ARCHITECTURES[name]


def read_config(file: Path) -> ModelConfig:
    """Read and check a checkpoint's config.json.

    Raises UserError, naming the file, where it is missing, truncated, of an unknown family, or
    describes a network that this implementation does not build exactly.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found; a model folder needs config.json and weights")
    content = read_json(file)
    model_type = content.get("model_type")
    if model_type not in FAMILIES:
        known = " or ".join(FAMILIES)
        raise UserError(f"{file}: model_type is {model_type!r}; BrainLM's are {known}")
    config = _from_dict(FAMILIES[model_type], content, file)
    _check_common(config, content, file)
    if isinstance(config, BrainLMConfig):
        _check_brainlm(config, content, file)
    else:
        _check_vitmae(config, content, file)
    return config


# Keys of the released config.json that are not fields here (BRAINLM.md 1a, 1b).
_ALWAYS: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "norm_pix_loss": False,
    "qkv_bias": True,
    "torch_dtype": "float32",
}
_FIXED: dict[str, dict[str, Any]] = {
    "brainlm": {
        "model_type": "brainlm_mae",
        "architectures": ["BrainLMForPretraining"],
        "attention_probs_dropout_prob": 0.1,  # declared, never applied
        "segment_means_seq_len": 64,  # equal: full attention (BRAINLM.md 0.2)
        "num_landmarks": 64,
        "inv_coeff_init_option": False,
        "image_size": 224,
        "patch_size": 16,
        "num_channels": 3,
    },
    "vitmae": {
        "model_type": "vit_mae",
        "architectures": ["ViTMAEForPreTraining"],
        "attention_probs_dropout_prob": 0.0,
    },
}


def config_content(config: ModelConfig) -> dict[str, Any]:
    """The config.json of a checkpoint in the released layout; `read_config` reads it back."""
    return {**_ALWAYS, **_FIXED[config.family], **asdict(config)}


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
    required = {f.name for f in fields(kind)} - {
        "initializer_range",
        "use_tanh_decoder",
        "loss_fn",
        "qkv_bias",
        "train_mode",
    }
    missing = sorted(required - set(values))
    if missing:
        raise UserError(f"{file}: lacks {', '.join(missing)}; it is not a complete BrainLM config")
    return kind(**values)


def _typed(name: str, kind: Any, value: Any, file: Path) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int and is_number and value == int(value) and value > 0:
        return int(value)
    if kind is float and is_number:
        return float(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if name == "image_size" and isinstance(value, list | tuple) and len(value) == 2:
        return _typed(name, int, value[0], file), _typed(name, int, value[1], file)
    raise UserError(f"{file}: {name} is {value!r}, which is not valid")


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


def _check_brainlm(config: BrainLMConfig, content: dict[str, Any], file: Path) -> None:
    # The original calls HF's Nyströmformer, which computes plain softmax attention exactly when
    # these two are equal (BRAINLM.md 0.2); otherwise it approximates, and no release does.
    if content.get("num_landmarks") != content.get("segment_means_seq_len"):
        raise UserError(f"{file}: num_landmarks differs from segment_means_seq_len: not supported")
    if config.decoder_hidden_size != config.hidden_size:
        raise UserError(f"{file}: decoder_hidden_size must equal hidden_size in this family")
    if config.num_timepoints_per_voxel % config.timepoint_patching_size:
        raise UserError(f"{file}: the window is not a whole number of time patches")
    if config.n_patches > POSITION_ROWS:
        raise UserError(f"{file}: more than {POSITION_ROWS} time patches in a window")
    if config.conv_kernel_size % 2 == 0:
        raise UserError(f"{file}: conv_kernel_size must be odd")
    if config.loss_fn not in ("mse", "mae"):
        raise UserError(f"{file}: loss_fn is {config.loss_fn!r}; expected mse or mae")


def _check_vitmae(config: ViTMAEConfig, content: dict[str, Any], file: Path) -> None:
    height, width = config.image_size
    if height % config.patch_size or width % config.patch_size or height != width:
        raise UserError(f"{file}: image_size must be square and a multiple of patch_size")
    if config.hidden_size % 4 or config.decoder_hidden_size % 4:
        raise UserError(f"{file}: widths must be multiples of 4 (2-D sine and cosine positions)")
