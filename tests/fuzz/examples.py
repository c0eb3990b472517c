"""How many examples a fuzz test takes: RAYXFORM_FUZZ sets it; without it there are few, so that a suite stays fast."""

import os

from hypothesis import HealthCheck, settings

CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large, HealthCheck.filter_too_much]
FUZZ = os.environ.get("RAYXFORM_FUZZ")


def examples(few: int):
    """The settings of a fuzz test: so many examples without RAYXFORM_FUZZ, and then always the same ones."""
    return settings(
        max_examples=int(FUZZ or few), deadline=None, suppress_health_check=CHECKS, derandomize=not FUZZ, print_blob=True
    )
