"""What all sections of the configuration are."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PixelSize = Annotated[float, Field(ge=0.1, le=100.0)]


class Section(BaseModel):
    """A part of the configuration: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
