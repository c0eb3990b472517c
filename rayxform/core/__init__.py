"""What SageMaker Batch Transform does with bytes: pure functions, tested at every cut.

Nothing in this package reads, waits, or looks at a clock. Bytes and plain values go in and come out, so that plan, check,
the Ray pipeline and the tests all run the very same code.
"""
