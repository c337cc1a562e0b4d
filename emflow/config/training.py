"""The settings of training: of no session, and of the models that ship."""

from typing import Annotated, Any, Literal

from pydantic import Field

from emflow.config.base import Section

# emflow.training.losses has them.
LossName = Literal["cross_entropy", "dice", "dice_ce", "focal", "weighted_mse"]


class Train(Section):
    """train_models: the models that ship, made anew from simulation; nothing of it concerns sessions."""

    atomic_models: str | None = Field(
        None, description="Folder of atomic models (mmCIF, PDB) to simulate; null: made-up shapes alone."
    )
    ranges: dict[str, Any] = Field(
        {},
        description="Ranges to draw from otherwise than by default, as {coverage: [0.1, 0.2]}; names: "
        "emflow/simulation_ranges.py. This and what follows concern the picker and the denoiser.",
    )
    schedule: Literal["one_cycle", "constant"] = Field(
        "one_cycle", description="Learning rate: one_cycle rises and falls, constant stays."
    )
    patience: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0,
        description="Stop after so many reports (50 steps each) without a lower validation loss; 0 never.",
    )
    heat_loss: LossName = Field("weighted_mse", description="The picker's loss of its heatmap of particles.")
    junk_loss: LossName = Field("dice_ce", description="The picker's loss of its mask of contaminants.")
    picker_init_from: str | None = Field(
        None,
        description="Shipped model's name or folder the picker starts from (not the light one); null: none.",
    )
    denoiser_init_from: str | None = Field(
        None, description="Shipped model's name or folder the denoiser starts from; null: none."
    )
    picker_steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        8000, description="Steps of the pickers' trainings; 8000 take an hour on 2 CPU cores with bfloat16."
    )
    denoiser_steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        7000, description="Steps of the denoiser's training."
    )
    scenes: Annotated[int, Field(ge=1, le=100_000)] = Field(
        160, description="Simulated micrographs that a model is scored on, and a picker calibrated with."
    )
    segmenter_steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        13_000, description="Steps of the training of the tomograms' segmenter."
    )
    tomogram_denoiser_steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        1300, description="Steps of the training of the tomograms' denoiser."
    )
    tomograms: Annotated[int, Field(ge=1, le=10_000)] = Field(
        6, description="Simulated tomograms that models of tomograms are scored on."
    )
    seed: Annotated[int, Field(ge=0, le=2**31)] = Field(
        17, description="Of all that is drawn at random in training."
    )
