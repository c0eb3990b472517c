"""What ``--help`` says of each command, beside its arguments: what it writes where, exit codes, variables, examples."""

from __future__ import annotations

from typing import Final

GENERAL: Final = """\
examples:
  rayxform run job.yaml                                 run a job on this machine
  rayxform plan job.yaml                                see the requests it will send, without the model
  rayxform check job.yaml                               see the first request, response and output
  rayxform status job.yaml                              see how far it is, from anywhere, or what it came to
  rayxform report job.yaml                              write that as a page, with records and errors
  rayxform stop job.yaml                                stop it; run it again, and it goes on from there
  rayxform serve job.yaml                               pages for the browser, and AWS's API for boto3
  rayxform submit job.yaml --address http://HEAD:8265   run it on a Ray cluster
  rayxform convert described.json > job.yaml            make a job file of what AWS says of a job
  rayxform schema > job.schema.json                     let the editor complete and check job files

`rayxform COMMAND --help` tells of each: what it writes, its exit codes, files and environment variables.

exit codes: 0 Completed, 1 Failed, 2 refused before anything was started, 130 stopped
"""

_CODES_OF_A_RUN = """\
exit codes:
  0    Completed
  1    Failed: a record, the model, the store or Ray; the reason is on stderr
  2    refused before anything was started: a wrong job, no input, no usable model, an output that cannot be
       written, more workers than there are, a run of the same job that goes on
  130  stopped (Ctrl-C, SIGTERM, rayxform stop); the same command goes on from there
"""

_CODES = """\
exit codes:
  0    done
  1    something failed on the way; the reason is on stderr
  2    refused: the job or an argument is wrong; the reason is on stderr
"""

_STATE = """\
  S3OutputPath/.rayxform/JOB/    plan.json, events.jsonl, errors.jsonl and the parts that a run goes on from; JOB is
                                 TransformJobName, else the job file's name
"""

_VARIABLES: Final = {
    "RAYXFORM_CACHE": "where models, their packages and compiled code are kept on each machine",
    "RAYXFORM_CACHE_MAX_GB": "what these may come to, 50 by default; what is in use is never removed",
    "RAYXFORM_FORK_WORKERS": "0: workers and models on this machine start one by one, instead of as forks of warm processes",
    "RAY_ADDRESS": "the Ray cluster to join where --address is missing",
    "RAY_API_SERVER_ADDRESS": "the job server's URL where --address is missing; else RAY_ADDRESS, if a URL",
    "AWS_...": "S3's credentials, region and endpoint, as boto3 takes them (AWS_PROFILE and so on)",
}

_JSON = "  stdout                         {else_}; with --json one JSON object as the last line\n"


def _sections(*sections: str) -> str:
    """Sections, each of which ends with a newline, with an empty line between them."""
    return "\n".join(sections)


def _variables(*names: str) -> str:
    return "environment:\n" + "".join(f"  {name:<24} {_VARIABLES[name]}\n" for name in names)


def _examples(*lines: tuple[str, str]) -> str:
    width = max(len(command) for command, _ in lines)
    return "examples:\n" + "".join(f"  {command:<{width}}   {what}\n" for command, what in lines)


DESCRIPTIONS: Final = {
    "run": (
        "Run a job: every record of every input goes through the model, and each input becomes one complete .out. A run that "
        "was cut short, however, goes on when the same command is given again."
    ),
    "plan": "Show the requests that a job will send, and the errors that it will meet, without Ray and without the model.",
    "check": "Load the model in this process, without Ray, or ask its server, and run the job's first mini-batch.",
    "status": "Show how far a job is, or what it came to: from its state folder alone, from any machine, also long after.",
    "stop": "Stop the run of a job that goes on, on whatever machine. Running the job again goes on from there.",
    "submit": (
        "Run a job on a Ray cluster, by its job server: the job file goes there, and Model.SourceDir where it is a folder of "
        "this machine. ModelDataUrl, S3Uri and S3OutputPath go there as they are: a path must be a folder that all nodes of "
        "the cluster share. What the run prints is printed here. Ctrl-C asks on a terminal whether to stop the job; Enter, a "
        "second Ctrl-C, and Ctrl-C without a terminal leave it running."
    ),
    "report": (
        "Write a job's page as one HTML file that needs nothing else: progress, errors with their records, samples, settings."
    ),
    "serve": (
        "Serve AWS's API (Create, Describe, List and StopTransformJob, the Model operations, tags) to boto3, the AWS CLI and "
        "the SageMaker SDK, which only need another endpoint_url, and pages to browsers at the same port. Jobs outlive it: "
        "the next one with the same --state finds them, and begins those again that died. A model is code that runs with "
        "this user's rights, so beyond this machine only callers with a key of the settings are served."
    ),
    "convert": (
        "Make a job file of what AWS says of a transform job: the JSON of `aws sagemaker describe-transform-job`, or of "
        "boto3's answer. The job then behaves as on AWS (Rayxform.Compatibility: aws). The model comes from a "
        "`describe-model` answer, or from options; without either a comment says what to fill in."
    ),
    "schema": "Print the JSON Schema of job files, for editors to complete and check them.",
    "completion": "Print a script by which a shell completes rayxform's commands, options and job files.",
}
"""What a command does."""

EPILOGS: Final = {
    "run": _sections(
        "writes:\n"
        "  S3OutputPath/KEY.out           one for each input, whole or not at all; with Rayxform.Partition a data set\n"
        + _STATE
        + "  stderr                         progress, and what the job came to\n"
        + _JSON.format(else_="nothing"),
        _CODES_OF_A_RUN,
        _variables("RAY_ADDRESS", "RAYXFORM_CACHE", "RAYXFORM_CACHE_MAX_GB", "RAYXFORM_FORK_WORKERS", "AWS_..."),
        _examples(
            ("rayxform run job.yaml", "on this machine"),
            ("rayxform run job.yaml --address auto", "on the Ray cluster that this machine belongs to"),
            ("rayxform run job.yaml --set MaxPayloadInMB=1", "with another value of a member"),
            ("rayxform run job.yaml --restart --workers 4", "from the beginning, with four workers"),
        ),
    ),
    "plan": _sections(
        "writes:\n" + _JSON.format(else_="a table of the inputs"),
        _CODES,
        _variables("AWS_..."),
        _examples(
            ("rayxform plan job.yaml", "see the requests"),
            ("rayxform plan job.yaml --set BatchStrategy=SingleRecord", "see them for another value of a member"),
            ("rayxform plan job.yaml --json", "for programs"),
        ),
    ),
    "check": _sections(
        "writes:\n" + _JSON.format(else_="the first request and response, and times"),
        _CODES,
        _variables("RAYXFORM_CACHE", "RAYXFORM_CACHE_MAX_GB", "AWS_..."),
        _examples(
            ("rayxform check job.yaml", "does my inference.py work?"),
            ("rayxform check job.yaml --set Rayxform.Precision=bfloat16", "does it say the same in bfloat16?"),
        ),
    ),
    "status": _sections(
        "reads:\n" + _STATE + "\nwrites:\n" + _JSON.format(else_="what is known of the job"),
        _CODES,
        _variables("AWS_..."),
        _examples(("rayxform status job.yaml", "how far is it?"), ("rayxform status job.yaml --json", "for programs")),
    ),
    "stop": _sections(
        "writes:\n" + _STATE + _JSON.format(else_="that it is stopped"),
        _CODES,
        _variables("AWS_..."),
        _examples(("rayxform stop job.yaml", "stop it, wherever it runs")),
    ),
    "report": _sections(
        "reads:\n" + _STATE + "\nwrites:\n  FILE                           one HTML file; its name is printed to stdout\n",
        _CODES,
        _variables("AWS_..."),
        _examples(
            ("rayxform report job.yaml", "a page for the browser"), ("rayxform report job.yaml --output r.html", "elsewhere")
        ),
    ),
    "serve": _sections(
        "writes:\n"
        "  DIR/server.sqlite              models, jobs and tags\n"
        "  DIR/jobs/JOB/log               what the runs of a job say\n"
        "  stdout                         the URL, once it listens\n" + "\n" + "exit codes:\n"
        "  0    ended (Ctrl-C, SIGTERM); jobs that run go on\n"
        "  2    refused: the settings, the port, the state or a job file; the reason is on stderr\n",
        _variables("RAY_ADDRESS", "RAYXFORM_CACHE", "RAYXFORM_CACHE_MAX_GB", "RAYXFORM_FORK_WORKERS", "AWS_..."),
        _examples(
            ("rayxform serve", "for clients on this machine"),
            ("rayxform serve job.yaml", "and a page with a button that runs this job"),
            ("rayxform serve --host 0.0.0.0 --settings keys.yaml", "for other machines, whose calls are signed"),
            ("rayxform serve --address http://HEAD:8265", "jobs run on a Ray cluster"),
        ),
    ),
    "submit": _sections(
        "writes:\n"
        "  S3OutputPath                   what `rayxform run` writes, by the cluster\n"
        "  stderr                         what the run prints there\n"
        "  stdout                         with --json what `rayxform run --json` prints, with SubmissionId\n"
        "\n"
        "The submission's id is TransformJobName, else the job file's name; where that is taken by "
        "a run that has ended, it is\n"
        "NAME-2, NAME-3 and so on. The job keeps its name, and so goes on from what the earlier run has written.\n"
        "\n"
        + _CODES_OF_A_RUN.replace("a run of the same job that goes on", "a run of the same job that goes on, no job server")
        + "       or left running by Ctrl-C\n",
        _variables("RAY_API_SERVER_ADDRESS", "AWS_...")
        + "  The cluster's nodes have their own RAYXFORM_CACHE, RAYXFORM_CACHE_MAX_GB and AWS_... variables.\n",
        _examples(
            ("rayxform submit job.yaml --address http://HEAD:8265", "run it there, and follow it"),
            ("rayxform submit job.yaml --address http://HEAD:8265 --no-wait", "do not wait for its end"),
        ),
    ),
    "convert": _sections(
        "writes:\n"
        "  stdout                         the job file: YAML, or JSON with --json\n"
        "  stderr                         what is to be filled in, and what `rayxform run` will refuse\n"
        "\n" + _CODES,
        _examples(
            ("aws sagemaker describe-transform-job ... | rayxform convert > job.yaml", "a job, with the model to fill in"),
            ("rayxform convert described.json --model model.json > job.yaml", "with `describe-model`'s answer"),
            ("rayxform convert described.json --model-data-url s3://B/model.tar.gz", "with a model that you name"),
        ),
    ),
    "schema": _sections(_examples(("rayxform schema > job.schema.json", "then name it in the editor's settings"))),
    "completion": _sections(
        _examples(
            ('eval "$(rayxform completion bash)"', "for this shell; in ~/.bashrc for all"),
            ("rayxform completion zsh > ~/.zsh/completions/_rayxform", "a folder that is on $fpath"),
            ("rayxform completion tcsh > ~/.rayxform.tcsh", "then source it in ~/.tcshrc"),
        )
    ),
}
"""What else ``--help`` says of a command, below its arguments."""
