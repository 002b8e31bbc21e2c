from tests.jobs.conftest import corpus, load, made, tiny_recipe  # noqa: F401 - fixtures
