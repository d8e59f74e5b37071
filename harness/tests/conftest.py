"""What holds for all of the harness's own tests: no example has a deadline, which would time the machine."""

from hypothesis import settings

settings.register_profile("harness", deadline=None)
settings.load_profile("harness")
