"""Two measurements compared number by number."""

import numpy as np

# Margins and what is decided from them may come from float32 logits.
FROM_LOGITS = {"margins": 1e-4, "accuracy": 1e-12}


def assert_alike(one, two, rtol=1e-6, atol=0):
    """Every number of two measurements' `to_dict`, and their names."""
    left, right = one.to_dict(), two.to_dict()
    assert left.keys() == right.keys()
    assert left["counts"] == right["counts"]
    assert left["nc4_means"] == right["nc4_means"]
    assert one.measured.names == two.measured.names
    for key in left.keys() - {"center", "nc4_means", "lambda_eff"}:
        loose = FROM_LOGITS.get(key, rtol)
        ones, twos = leaves(left[key]), leaves(right[key])
        assert [value is None for value in ones] == [value is None for value in twos], key
        pairs = [(a, b) for a, b in zip(ones, twos, strict=True) if isinstance(a, int | float)]
        np.testing.assert_allclose([a for a, _ in pairs], [b for _, b in pairs], rtol=loose,
                                   atol=1e-5 if key == "margins" else atol, err_msg=key)


def leaves(value):
    """The values of nested dictionaries and lists."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return [leaf for inner in value for leaf in leaves(inner)] if isinstance(value, list) else [value]
