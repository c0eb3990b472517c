"""What a person looks at in a browser: a job's page, the list of jobs, and a report in one file.

``History`` reads a job's state folder as it grows and gives a ``JobView``; ``render_job`` makes HTML of that. Nothing here
serves HTTP, and nothing in a page is fetched from elsewhere: it works without JavaScript, and better with it.
"""

from rayxform.pages.history import History, empty_view, read_view
from rayxform.pages.rendering import render_error, render_job, render_jobs
from rayxform.pages.view import Action, JobLine, JobView

__all__ = ["Action", "History", "JobLine", "JobView", "empty_view", "read_view", "render_error", "render_job", "render_jobs"]
