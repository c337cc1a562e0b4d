"""The card of a model: what it is for, how it was made, how good it is."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emflow.errors import SettingError

PICK = "pick"
DENOISE = "denoise"
DENOISE_TOMOGRAM = "denoise_tomogram"
SEGMENT = "segment"
_NEEDED = {
    PICK: ("pixels_per_diameter", "calibration", "threshold"),
    DENOISE: ("pixel_size_angstrom",),
    DENOISE_TOMOGRAM: ("pixel_size_angstrom",),
    SEGMENT: ("pixel_size_angstrom", "classes"),
}
# A network is used on tomograms whose voxels are its own size to within this share.
PIXEL_SIZE_TOLERANCE = 0.25


@dataclass(frozen=True)
class Calibration:
    """A logistic map from a picker's heat to the probability of a particle.

    ``figure_of_merit = sigmoid(slope * logit + intercept)``, where ``logit`` is the network's output before
    its sigmoid at a peak.
    """

    slope: float
    intercept: float


@dataclass(frozen=True)
class ModelCard:
    """What ``card.json`` of a model folder holds.

    Attributes
    ----------
    task
        ``"pick"``, ``"denoise"``, ``"denoise_tomogram"`` or ``"segment"``.
    architecture
        What :func:`emflow.networks.build` takes.
    weights_sha256
        Of ``model.safetensors``, in hexadecimal; filled in when the model is saved.
    licence
        Of the weights.
    training, scores
        How the weights were made (command, seed, hours, device, data) and what they reach.
    notes
        What a user should know, in sentences.
    pixels_per_diameter, calibration, threshold
        Picker: the scale it works at, its calibration, and the figure of merit of the best F1 on held-apart
        simulated micrographs.
    pixel_size_angstrom
        All but pickers: the scale it works at.
    classes
        Segmenter: the names of its classes, by their value in a label volume.
    training_ranges
        The range of each of :func:`emflow.familiarity.image_statistics` over the training.
    """

    task: str
    architecture: Mapping[str, Any]
    weights_sha256: str = ""
    licence: str = "BSD-3-Clause"
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""
    pixels_per_diameter: float | None = None
    calibration: Calibration | None = None
    threshold: float | None = None
    pixel_size_angstrom: float | None = None
    training_ranges: Mapping[str, tuple[float, float]] | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.task not in _NEEDED:
            raise SettingError(f"model card: task must be one of {sorted(_NEEDED)}, not {self.task!r}")
        for name in _NEEDED[self.task]:
            if getattr(self, name) is None:
                raise SettingError(f"model card: {name} is missing, which a model for {self.task!r} needs")

    @property
    def results_depend_on(self) -> dict[str, Any]:
        """The entries, apart from the weights, that change what the model says of an image."""
        names = (
            "task",
            "architecture",
            "pixels_per_diameter",
            "calibration",
            "threshold",
            "pixel_size_angstrom",
            "training_ranges",
            "classes",
        )
        content = self.to_dict()
        return {name: content[name] for name in names if name in content}

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into ``card.json``, without the entries of other tasks."""
        content = dataclasses.asdict(self)
        content["architecture"] = dict(self.architecture)
        return {name: value for name, value in content.items() if value is not None}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "ModelCard":
        """Parse what ``card.json`` holds.

        Raises
        ------
        SettingError
            When an entry is missing, unknown or not of its type.
        """
        known = {entry.name for entry in dataclasses.fields(cls)}
        unknown = sorted(set(content) - known)
        if unknown:
            raise SettingError(f"model card: unknown entries {', '.join(unknown)}")
        values = dict(content)
        try:
            if values.get("calibration") is not None:
                calibration = values["calibration"]
                values["calibration"] = Calibration(
                    slope=float(calibration["slope"]), intercept=float(calibration["intercept"])
                )
            for name in ("pixels_per_diameter", "threshold", "pixel_size_angstrom"):
                if values.get(name) is not None:
                    values[name] = float(values[name])
            if values.get("training_ranges") is not None:
                values["training_ranges"] = {
                    str(name): (float(low), float(high))
                    for name, (low, high) in values["training_ranges"].items()
                }
            if values.get("classes") is not None:
                values["classes"] = tuple(str(name) for name in values["classes"])
            if not isinstance(values["architecture"], Mapping):
                raise TypeError("architecture is not a mapping")
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise SettingError(f"model card: not usable: {type(error).__name__} {error}") from error
