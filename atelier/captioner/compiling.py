"""One way to compile a function of a model's weights, whatever Keras runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras


def compiled(function: Callable, variables: Sequence[keras.Variable]) -> Callable:
    """`function` of arrays (and lists of arrays), compiled once for each set of shapes.

    Args:
        variables: every Keras variable that the function reads; JAX must be told of them.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def pure(values, *arguments):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(*arguments)

        return lambda *arguments: pure([variable.value for variable in variables], *arguments)
    return function
