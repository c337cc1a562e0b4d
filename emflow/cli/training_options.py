"""What the training commands let a user set: of the learning, of the run, and of what is simulated."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from emflow.training.settings import TrainingConfig

# Not the number of steps, so that a training that is given more of them can go on from its checkpoint.
_ALL_STEPS = 10**9

# Options whose default is each command's own.
Steps = Annotated[int, Parameter(help="Steps of the optimiser.")]
Seed = Annotated[int, Parameter(help="Of everything random.")]
Channels = Annotated[
    tuple[int, ...], Parameter(consume_multiple=True, help="Width of the network at its levels.")
]
ParentModel = Annotated[
    str, Parameter(help="Shipped model's name, or the path of a model folder, to start from.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a network learns.

    Attributes
    ----------
    batch
        Crops a step.
    learning_rate
        Highest rate of the schedule; a quarter of the default suits weights that --init-from brings.
    schedule
        one_cycle rises to the rate and falls to a hundredth of it; constant keeps it.
    average_decay
        Decay a step of the running average of the weights, which is what is kept.
    freeze
        encoder keeps the weights up to the coarsest level as --init-from brought them.
    frozen_steps
        For how many steps; all of them when not given.
    encoder_rate
        Share of the rate at which the encoder learns, once it does.
    patience
        Stop after so many reports (50 steps each) that did not lower the validation loss, and keep the best;
        0 never stops.
    """

    batch: int = 8
    learning_rate: float = 2e-3
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    average_decay: float = 0.998
    freeze: Literal["none", "encoder"] = "none"
    frozen_steps: int | None = None
    encoder_rate: float = 1.0
    patience: int = 0

    def config(self, *, steps: int, seed: int) -> "TrainingConfig":
        """Return the settings of the training loop."""
        from emflow.training.settings import TrainingConfig

        frozen = _ALL_STEPS if self.frozen_steps is None else self.frozen_steps
        return TrainingConfig(
            steps=steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            average_decay=self.average_decay,
            seed=seed,
            schedule=self.schedule,
            encoder_frozen_steps=frozen if self.freeze == "encoder" else 0,
            encoder_rate=self.encoder_rate,
            patience=self.patience,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Where a training runs, what it starts from, and where it leaves what it made.

    Attributes
    ----------
    output
        Folder for the model (model.safetensors, card.json), metrics.json, curves and the checkpoint.
    threads
        CPU threads of the training itself.
    device
        auto, cpu or cuda.
    init_from
        Model folder, or a shipped model's name, to start from instead of random weights.
    resume
        Go on from the checkpoint in the output folder, if there is one.
    restart
        With --resume, start from nothing where that checkpoint was made with other settings or data.
    """

    output: Path
    threads: int = 1
    device: str = "auto"
    init_from: Path | None = None
    resume: bool = False
    restart: bool = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What is simulated to learn from.

    Attributes
    ----------
    models
        Folder of atomic models (mmCIF or PDB files) to simulate besides the procedural shapes.
    allow_kept_apart
        Learn also from structures that models are judged by: for a model of your own.
    workers
        Processes besides that simulate.
    """

    models: Path | None = None
    allow_kept_apart: bool = False
    workers: int = 1


@dataclass(frozen=True, kw_only=True)
class MicrographSimulation(Simulation):
    """What micrographs are simulated to learn from.

    Attributes
    ----------
    ranges
        What the simulation is to draw otherwise: a YAML file, or YAML such as '{coverage: [0.1, 0.2]}'; keys
        of emflow.simulation.SimulationRanges.
    """

    ranges: str | None = None


@dataclass(frozen=True, kw_only=True)
class TomogramSimulation(Simulation):
    """What tomograms are simulated to learn from.

    Attributes
    ----------
    keep
        Folder that keeps simulated tomograms: another training takes them from there.
    crops
        How often a tomogram is learned from before another takes its place.
    window
        Tomograms at hand at a time, 13 MB of memory each: few are learned by heart, many take long to
        simulate before the first step.
    """

    keep: Path | None = None
    crops: float = 400.0
    window: int = 24
