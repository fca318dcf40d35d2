# SPDX-License-Identifier: GPL-2.0-or-later
"""What the parts of a guest's report are made of. A guest is untrusted: every value is checked and bounded."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lab.untrusted import words

MAX_BUCKET = 64 << 8  # of a histogram with at most 8 sub-bits
MAX_ITEMS = 1 << 17  # of any list

Count = Annotated[int, Field(strict=True, ge=0, le=(1 << 64) - 1)]
Signed = Annotated[int, Field(strict=True, ge=-(1 << 63), le=(1 << 63) - 1)]
Word = Annotated[str, Field(max_length=200), AfterValidator(words)]  # on one line, safe to show
Pairs = Annotated[list[tuple[Count, Count]], Field(max_length=MAX_ITEMS)]
Buckets = Annotated[
    list[tuple[Annotated[int, Field(strict=True, ge=0, lt=MAX_BUCKET)], Count]], Field(max_length=MAX_BUCKET)
]


class Part(BaseModel):
    """A part of the report; what the tools say beyond it is not our business."""

    model_config = ConfigDict(frozen=True, extra="ignore")
