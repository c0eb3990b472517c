"""From a job to its output: planning, reading, the model pool, joining, writing, publishing.

``cluster``, ``dataset``, ``seams`` and ``run`` are the only modules of the package that import Ray.
"""
