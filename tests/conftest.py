"""What every test runs under: files that commands write keep to their schemas.

It holds no helper; see `tests.support`.
"""

pytest_plugins = ["tests.support.written"]
