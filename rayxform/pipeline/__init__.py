"""From a job to its output: planning, reading, the model pool, joining, writing, publishing.

``planning``, ``reading``, ``rows``, ``worker``, ``writing`` and ``tracking`` know nothing of Ray; ``cluster``, ``dataset`` and
``run`` are the only modules of the package that import it.
"""
