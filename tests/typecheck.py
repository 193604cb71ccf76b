"""The type checker of the test run: beartype on every annotated call, an int accepted where a float is."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
