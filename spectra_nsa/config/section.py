"""What all sections of a recipe have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: closed and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)
