"""How files that lie elsewhere are fetched."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.types import NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class FetchConfig:
    """Files that lie elsewhere (s3://, gs://, http://, https://): fetched ahead of the decoding, deleted when read."""

    cache: PositiveFloat = 4096.0
    """Most MB that fetched files take up in the cache folder at any time; a larger file is not fetched."""
    threads: PositiveInt = 8
    """Files that are fetched at the same time."""
    seconds: PositiveFloat = 600.0
    """Longest time in seconds that fetching one file may take, all attempts together."""
    stall: PositiveFloat = 30.0
    """Seconds without a byte after which an attempt is given up."""
    retries: NonNegativeInt = 4
    """Further attempts in a row that bring nothing new, after status 429 or 5xx, a stall, or a cut connection."""
