"""The ``rayxform`` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from rayxform._version import __version__
from rayxform.cli.help_texts import DESCRIPTIONS, EPILOGS, GENERAL
from rayxform.ending import end_on_sigterm, let_end

EXIT_CODES = {"Completed": 0, "Failed": 1, "Stopped": 130}
REFUSED = 2
SHELLS = ("bash", "zsh", "tcsh")
_WIDTH = 115


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    began_at = _process_start()
    options = _parser().parse_args(arguments)
    # After the arguments, so that --help and --version do not wait for what only a job needs.
    from rayxform.errors import JobError, RayxformError, ServerSettingsError  # noqa: PLC0415

    try:
        try:
            code = options.command(options, began_at)
        finally:
            let_end()  # what is said of its end, and the interpreter's own end
    except (JobError, ServerSettingsError) as error:
        code = _refuse(options, error, REFUSED)
    except RayxformError as error:
        code = _refuse(options, error, EXIT_CODES["Failed"])
    except KeyboardInterrupt:
        code = EXIT_CODES["Stopped"]
        if getattr(options, "json", False):
            # The first stdout, since what stood in for it may have been interrupted as it left.
            print(json.dumps({"TransformJobStatus": "Stopped"}), file=sys.__stdout__, flush=True)
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rayxform",
        description="Batch inference as Amazon SageMaker Batch Transform does it, on Ray Data.",
        epilog=GENERAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rayxform {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = _command(commands, "run", _run, "run a job: one complete .out for each input")
    within = "refuse to read or write what does not lie below it; may be given several times"
    run.add_argument("--within", action="append", default=[], metavar="URL", help=within)
    run.add_argument("--address", metavar="A", help="a Ray cluster (default: RAY_ADDRESS, else Ray is started here)")
    _add_run_options(run)
    _command(commands, "plan", _plan, "show the requests that a job will send, and the errors that it will meet")
    _command(commands, "check", _check, "load the model here, or ask its server, and run the first mini-batch")
    _command(commands, "status", _status, "show how far a job is, or what it came to; also long after")
    report = _command(commands, "report", _report, "write a job's page as one HTML file: progress, errors, records, settings")
    report.add_argument("--output", metavar="FILE", help="where to write it (default: <job name>.html in the current folder)")
    _command(commands, "stop", _stop, "stop a job that runs, on whatever machine; running it again goes on from there")
    submit = _command(commands, "submit", _submit, "run a job on a Ray cluster, by its job server")
    submit.add_argument("--address", metavar="URL", help="the job server: http://HEAD:8265")
    submit.add_argument("--no-wait", action="store_true", help="do not wait for the end of the run")
    _add_run_options(submit)
    _add_serve(
        _subparser(commands, "serve", _serve, "serve AWS's API to boto3, the AWS CLI and the SDK, and pages to browsers")
    )
    _add_convert(_subparser(commands, "convert", _convert, "make a job file of what AWS says of a transform job"))
    _subparser(commands, "schema", _schema, "print the JSON Schema of job files")
    completion = _subparser(commands, "completion", _completion, "print a script by which a shell completes commands")
    completion.add_argument("shell", choices=SHELLS, help="the shell")
    return parser


def _subparser(commands: Any, name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
    """A command with its texts of ``help_texts``."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=textwrap.fill(DESCRIPTIONS.get(name, text), _WIDTH),
        epilog=EPILOGS.get(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=function)
    return command


def _add_run_options(command: argparse.ArgumentParser) -> None:
    workers = "model workers (default: one a GPU, a core or a server)"
    command.add_argument("--workers", type=_positive, metavar="N", help=workers)
    command.add_argument("--restart", action="store_true", help="begin anew, whatever an earlier run of the job left")


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("jobs", metavar="JOB", nargs="*", help="job files that the pages show, and run on demand")
    command.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1); beyond this machine only with Keys")
    command.add_argument("--port", type=int, default=8750, help="where to listen (8750); 0 for any that is free")
    command.add_argument("--state", metavar="DIR", help="the folder of what it remembers (~/.local/state/rayxform)")
    command.add_argument("--address", metavar="A", help="a Ray cluster: http://HEAD:8265, or what rayxform run takes")
    command.add_argument("--settings", metavar="FILE", help="keys, prefixes, images and more: JSON or YAML")


def _add_convert(command: argparse.ArgumentParser) -> None:
    described = "describe-transform-job's answer (default: stdin)"
    command.add_argument("file", metavar="FILE", nargs="?", default="-", help=described)
    command.add_argument("--model", metavar="FILE", help="describe-model's answer")
    command.add_argument("--model-data-url", metavar="URL", help="Model.ModelDataUrl: a model.tar.gz or a folder")
    command.add_argument("--source-dir", metavar="URL", help="Model.SourceDir: the folder, or the archive, of inference.py")
    command.add_argument("--entry-point", metavar="NAME", help="Model.EntryPoint (default: inference.py)")
    command.add_argument("--json", action="store_true", help="print JSON instead of YAML")


def _command(commands: Any, name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
    command = _subparser(commands, name, function, text)
    command.add_argument("job", metavar="JOB", help="a job file, JSON or YAML: a path or a URL")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help="replace a member: MaxPayloadInMB=1",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
    return command


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} workers cannot run a job; write 1 or more")
    return number


def _run(options: argparse.Namespace, began_at: float) -> int:
    from rayxform.pipeline.fork_server import warming_up  # noqa: PLC0415

    end_on_sigterm()
    with warming_up(options.address):  # on another core, while this process imports
        from rayxform.api import run  # noqa: PLC0415
        from rayxform.console import show_result, showing_progress  # noqa: PLC0415

        with _quiet_stdout(), showing_progress() as watch:
            result = run(
                options.job,
                overrides=options.overrides,
                workers=options.workers,
                address=options.address,
                restart=options.restart,
                within=options.within,
                began_at=began_at,
                watch=watch,
            )
    show_result(result)
    if options.json:
        print(json.dumps(result.to_members()), flush=True)
    return EXIT_CODES[result.status]


def _plan(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.api import plan  # noqa: PLC0415

    return _show(options, plan(options.job, overrides=options.overrides), "show_plan")


def _check(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.api import check  # noqa: PLC0415

    with _stdout_for_json(is_json=options.json):
        report = check(options.job, overrides=options.overrides)
    return _show(options, report, "show_check")


def _status(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.api import status  # noqa: PLC0415

    return _show(options, status(options.job, overrides=options.overrides), "show_status")


def _stop(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.api import stop  # noqa: PLC0415

    stop(options.job, overrides=options.overrides)
    if options.json:
        print(json.dumps({"TransformJobStatus": "Stopped"}))
    else:
        print("stopped; the same job goes on from there when it is run again")
    return 0


def _report(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.errors import JobError  # noqa: PLC0415

    try:
        from rayxform.pages.report import report  # noqa: PLC0415
    except ImportError as error:
        raise JobError(f"pages need packages of their own ({error}): pip install 'rayxform[server]'") from None
    path = report(options.job, options.output, overrides=options.overrides)
    print(json.dumps({"Report": str(path)}) if options.json else path)
    return 0


def _serve(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.errors import JobError  # noqa: PLC0415

    try:
        from rayxform.server import read_settings, serve  # noqa: PLC0415
    except ImportError as error:
        raise JobError(f"{error}; pip install 'rayxform[server]'") from None
    serve(
        read_settings(options.settings),
        host=options.host,
        port=options.port,
        state=Path(options.state) if options.state else None,
        address=options.address,
        job_files=options.jobs,
        announce=lambda url: print(f"rayxform serve: {url} (the pages, and endpoint_url for AWS's clients)", flush=True),
    )
    return 0


def _submit(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.cli.submit import submit  # noqa: PLC0415

    run = submit(
        options.job,
        overrides=options.overrides,
        address=options.address,
        workers=options.workers,
        restart=options.restart,
    )
    print(f"submitted as {run.id}", file=sys.stderr)
    told: dict[str, Any] = {"TransformJobStatus": "InProgress", "TransformJobName": run.name, "SubmissionId": run.id}
    code = 0
    if options.no_wait:
        print(run.how_to_go_on(), file=sys.stderr)
    elif (state := run.follow()) is None:
        code = EXIT_CODES["Stopped"]
    else:
        code = EXIT_CODES[state.status] if state.exit_code != REFUSED else REFUSED
        told |= {"TransformJobStatus": state.status, **(state.result or {})}
    if options.json:
        print(json.dumps(told), flush=True)
    return code


def _convert(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.cli.convert import convert  # noqa: PLC0415

    return convert(options)


def _completion(options: argparse.Namespace, began_at: float) -> int:
    del began_at
    from rayxform.errors import JobError  # noqa: PLC0415

    try:
        import shtab  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise JobError("completion needs a package that is not there; pip install 'rayxform[completion]'") from error
    parser = _parser()
    for action in (one for command in _commands_of(parser).values() for one in command._actions):  # noqa: SLF001 - no other way
        if action.dest in ("job", "jobs", "file", "model", "settings"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return 0


def _commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(dict(one.choices) for one in parser._actions if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001


def _show(options: argparse.Namespace, found: Any, name: str) -> int:
    """Print what a command found: one JSON object, or what the function of the console's of that name makes of it."""
    if options.json:
        print(json.dumps(found.to_members()))
    else:
        from rayxform import console  # noqa: PLC0415 - its libraries take a while to import

        getattr(console, name)(found)
    return 0


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Ray tells of workers that end on stdout, which is for data; its log files have that, and rayxform's events."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # noqa: PTH123 - a device
        yield


def _stdout_for_json(*, is_json: bool) -> AbstractContextManager[Any]:
    """What the user's own inference.py prints goes to stderr while stdout is for one JSON object."""
    return redirect_stdout(sys.stderr) if is_json else nullcontext()


def _schema(options: argparse.Namespace, began_at: float) -> int:
    del options, began_at
    from rayxform.spec import job_schema  # noqa: PLC0415

    print(json.dumps(job_schema(), indent=2))
    return 0


def _refuse(options: argparse.Namespace, error: Exception, code: int) -> int:
    print(f"rayxform: {error}", file=sys.stderr)
    if getattr(options, "json", False):
        print(json.dumps({"TransformJobStatus": "Failed", "FailureReason": str(error)}), flush=True)
    return code


def _process_start() -> float:
    """When the command was given, as Unix time in seconds; the interpreter's own start counts."""
    import psutil  # noqa: PLC0415

    return min(float(psutil.Process().create_time()), time.time())
