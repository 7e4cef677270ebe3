"""One way to compile a function of a model's weights, whatever Keras runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras


def compiled(
    function: Callable, variables: Sequence[keras.Variable], shapes: Sequence[tuple] | None = None, xla: bool = False
) -> Callable:
    """`function` of arrays (and lists of arrays), compiled once for each set of shapes.

    Args:
        variables: every Keras variable that the function reads; JAX must be told of them.
        shapes: (shape, dtype) of each argument. With a size of `None` TensorFlow compiles once for all sizes.
        xla: make one program of everything, not a graph whose operations TensorFlow starts one by one. Thousands of
            small ones run in half the time then, but it takes two seconds to compile, for each set of shapes anew.
            (JAX always does so.)
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec(*shape) for shape in shapes] if shapes else None
        return tf.function(function, signature, autograph=False, jit_compile=xla)
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def pure(values, *arguments):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(*arguments)

        return lambda *arguments: pure([variable.value for variable in variables], *arguments)
    return function


def constant(function: Callable, variables: Sequence[keras.Variable]) -> Callable:
    """`function` that, where it is being compiled, takes the present values of `variables` for constants.

    Then TensorFlow folds batch norms into convolutions and lays the weights out for the processor once, not at every
    call. It costs a second copy of them, and later changes do not reach what was compiled.
    """

    values = [variable.numpy() for variable in variables]

    def call(*arguments):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arguments)

    return call
