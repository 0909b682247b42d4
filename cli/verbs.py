"""The command line: bonemri phantom, simulate, estimate, validate.

Heavy imports happen inside the verbs, so that ``--help`` answers at once. Every error a user can cause is one line on
standard error, and exit status 2.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..errors import InputError
from . import arguments


class _Verb(TyperCommand):
    """A verb whose ``--help`` tells of the method, phantom or protocol that it is called with."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Answer a call for help that names something; leave all others to the parser."""
        if {"--help", "-h"} & set(args):
            subject = self._subject(ctx, args)
            if subject is not None:
                from . import guide

                print(guide.PAGES[str(self.name)](subject))
                raise typer.Exit
        return super().parse_args(ctx, args)

    def _subject(self, ctx: Any, args: list[str]) -> str | None:
        """What stands in the place of the first argument; None where nothing does, or the rest makes no sense."""
        first = next(p for p in self.params if p.param_type_name == "argument")
        try:
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
        except Exception as error:
            if not hasattr(error, "format_message"):  # a wrong call: see `run`
                raise
            return None
        found = given.get(first.name)
        is_phantom_file = self.name == "phantom" and Path(str(found)).suffix
        return found if isinstance(found, str) and not is_phantom_file else None


app = typer.Typer(
    name="bonemri",
    help="Bones whose truth is known, scanned with honest MRI physics, and estimators put on trial.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: quick, and the same in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path | None, typer.Option("--output", "-o", metavar="OUT", help="Where to write.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter; may be repeated.")
]
# What can go wrong with a scanner and is told in a word or a number.
SCANNER_FAULTS = ("concomitant", "odd_even_phase", "delays")
# Part of the voxels: fewer that could be either are noise and borders, of which no range of the field is worth asking.
MANY_AMBIGUOUS = 0.05
# Numbers come as text: the error of `arguments.number` names the option, the value and what would be right.
Number = str


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"bonemri {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command(cls=_Verb)
def phantom(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE", help="A phantom, or a file that holds one; without: list them.")
    ] = None,
    settings: Settings = None,
    out: Out = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Write OUT.html and OUT.png beside OUT.nc too: images, truth, sources.")
    ] = False,
    on: Annotated[
        Path | None,
        typer.Option("--on", metavar="SCAN", help="In the voxels of this scan, or of maps: its truth, its labels."),
    ] = None,
) -> None:
    """Make a bone with known truth.

    OUT is NetCDF where it ends in .nc: ./NAME.nc without -o. Else it is a folder, which gets NAME.nc; the tissues and
    the truth maps as NIfTI with JSON (NAME.json in the layout of MR-zero, truth.json for the rest); and the preview,
    index.html with preview.png.

    What may be set of a phantom: bonemri phantom NAME --help.
    """
    from .. import phantoms
    from ..phantoms import nifti, regridding
    from ..phantoms import preview as pages
    from ..simulator import files

    if name is None:
        _refuse_without("a NAME", settings=settings, output=out, preview=preview, on=on)
        for known, function in phantoms.registry.items():
            print(f"{known:<24} {_first_line(function)}")
        return
    make: Callable[[], Any]
    if Path(name).suffix:
        if settings:
            raise InputError(f"--set goes with the NAME of a phantom; {name} is a file, made already")
        if out is None and (not preview or on is not None):
            raise InputError(f"phantom {name}: it is a file already; give --preview, or -o OUT for a copy")
        make = partial(phantoms.Phantom.from_netcdf, files.existing_file(name, "a phantom"))
        if out is None:
            page, _ = pages.write(make(), Path(name).with_suffix(".html"))
            print(f"wrote {page}")
            return
        target = files.output_path(out, folder=True)
    else:
        chosen = phantoms.get(name)
        make = partial(
            chosen, **arguments.parse(settings, list(inspect.signature(chosen).parameters), f"phantom {name}")
        )
        target = files.output_path(out or f"{name}.nc", folder=True)
    is_folder = target.is_dir() or target.suffix != ".nc"
    voxels = None if on is None else regridding.place_of(on)
    with files.writing(target, folder=is_folder) as place:
        bone = make() if voxels is None else make().on(voxels)
        if is_folder:
            bone.to_netcdf(place / f"{bone.name}.nc")
            nifti.write(bone, place)
            pages.write(bone, place / "index.html")
        else:
            bone.to_netcdf(place)
            if preview:
                pages.write(bone, target.with_suffix(".html"))
    print(f"wrote {target}")


@app.command(cls=_Verb)
def simulate(
    protocol: Annotated[
        str, typer.Argument(metavar="PROTOCOL", help="A preset, a TOML file, or a Pulseq file (.seq).")
    ],
    phantom: Annotated[str, typer.Option(metavar="NAME|FILE", help="A phantom, or a file that holds one.")],
    rung: Annotated[
        str,
        typer.Option(
            metavar="RUNG",
            help="matched (the protocol's equation), pools (the sum over all pools), engine (its pulses played) or "
            "scan (through k-space, coils and reconstruction); a Pulseq file: engine or scan.",
        ),
    ] = "pools",
    snr: Annotated[
        Number | None, typer.Option(metavar="S", help="Signal to noise (at b = 0 or TE 0); noise-free without it.")
    ] = None,
    seed: Annotated[Number, typer.Option(metavar="N", help="Seed of the random numbers.")] = "0",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Switch on a confounder of the sequence (off_resonance, ...) or a fault of the scanner "
            "(concomitant=true, odd_even_phase, delays), or change a number of the protocol (TR, flip_angle, ...); may "
            "be repeated.",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Scan a phantom.

    The scan is written to NetCDF: to ./PROTOCOL.nc without -o. A phantom that is named is made for the field strength
    of the protocol.

    What a protocol plays, and what may be set: bonemri simulate PROTOCOL --help; bonemri simulate alone names the
    presets.
    """
    from .. import phantoms, simulator
    from ..simulator import files

    ratio, start = arguments.number("--snr", snr), arguments.seed(seed)
    pulseq = protocol.endswith(".seq")
    chosen: Any = files.existing_file(protocol, "a Pulseq file") if pulseq else simulator.protocols.get(protocol)
    sequence = "pulseq" if pulseq else chosen.sequence
    switches, scanner, changes = _confounders(settings, sequence, rung, {} if pulseq else chosen.constants)
    chosen = chosen.replace(**changes) if changes else chosen
    target = files.output_path(out or f"{Path(protocol).stem}.nc")
    if Path(phantom).suffix:
        bone = phantoms.Phantom.from_netcdf(files.existing_file(phantom, "a phantom"))
    else:
        make = phantoms.get(phantom)
        bone = make() if pulseq or not _takes(make, "field") else make(field=chosen.field_strength)
    with files.writing(target) as place, _progress(f"simulate {Path(protocol).stem}") as progress:
        found = simulator.scan(
            bone, chosen, rung=rung, snr=ratio, seed=start, scanner=scanner, progress=progress, **switches
        )
        files.write_scan(found, place)
    print(f"wrote {target}")
    if "folded" in found.attrs:
        print(found.attrs["folded"])


@app.command(cls=_Verb)
def estimate(
    method: Annotated[str | None, typer.Argument(metavar="METHOD", help="Without it: list them.")] = None,
    scan: Annotated[
        Path | None,
        typer.Argument(
            metavar="INPUT",
            help="A scan: NetCDF, or 4-D NIfTI; beside it a .bval, or for echoes a .json with EchoTime and the rest.",
        ),
    ] = None,
    second: Annotated[
        Path | None,
        typer.Argument(
            metavar="INPUT2", help="The phase (rad) where INPUT is a magnitude; the PDFF map of ivim-fat-aware."
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="M", help="Voxels to fit; of an integer map each label gets statistics.")
    ] = None,
    bval: Annotated[Path | None, typer.Option(metavar="F", help="b-values (s/mm2), where not beside INPUT.")] = None,
    sigma: Annotated[
        Number | None,
        typer.Option(
            metavar="S",
            help="Noise SD, where it is known, of complex data that of each channel: a number or a map (NIfTI, .nc).",
        ),
    ] = None,
    conjugate: Annotated[
        bool, typer.Option("--conjugate", help="The scanner's phase turns the other way: fat at positive frequency.")
    ] = False,
    protocol: Annotated[
        str | None, typer.Option(metavar="P", help="A TOML file (or preset) with TE, TR, field strength.")
    ] = None,
    settings: Settings = None,
    out: Out = None,
) -> None:
    """Fit a scan, and write maps with their uncertainty.

    OUT is NetCDF where it ends in .nc, else a folder of NIfTI maps with estimate.json: ./METHOD/ without -o.

    What a method takes, gives and may be set: bonemri estimate METHOD --help.
    """
    from .. import estimators

    if method is None:
        _refuse_without("a METHOD", settings=settings, output=out)
        for known in _methods():
            print(f"{known:<18} {estimators.get(known).title}")
        return
    chosen = estimators.get(method)
    encoding = getattr(chosen, "encoding", "b")  # of another package's estimator it may be missing
    if scan is None:
        companion = "a .bval" if encoding == "b" else "a JSON sidecar"
        raise InputError(f"estimate {method} needs INPUT: a scan (.nc), or a 4-D NIfTI with {companion} beside it; see "
                         f"bonemri estimate {method} --help")  # fmt: skip
    noise_map = Path(sigma) if sigma is not None and arguments.is_map(sigma) else None
    noise_sd: Any = (
        None if noise_map is not None else arguments.number("--sigma", sigma, "or a map (.nii, .nii.gz or .nc)")
    )

    from .. import simulator
    from ..simulator import files, label_maps, maps, multi_echo, nifti
    from . import explained

    option_maps: dict[str, Path] = {}
    stated = None if protocol is None else simulator.protocols.get(protocol)
    echoes = encoding in multi_echo.ENCODINGS
    if conjugate and not echoes:
        raise InputError(f"--conjugate turns the phase of complex data; estimate {method} takes magnitudes")
    needs_phase = getattr(chosen, "signal", None) == "complex"
    beside = multi_echo.phase_of(scan) if second is None and echoes and needs_phase else None
    second = second or beside
    phase = second if echoes else None
    series = files.read(scan, encoding=encoding, second=phase, bval=bval, protocol=stated, conjugate=conjugate)
    if beside is not None:
        series.attrs["reading"] = "; ".join([f"phase from {beside.name}", *filter(None, [series.attrs.get("reading")])])
    if needs_phase and series.dtype.kind != "c":
        raise InputError(f"estimate {method} needs complex data, and {scan} has no phase: give the phase (rad) as "
                         "INPUT2 (estimate dixon-magnitude does without)")  # fmt: skip
    for name in (setting.name for setting in chosen.model.settings):
        held = {name, *((encoding, *getattr(chosen, "aliases", ())) if name == "TE" and echoes else ())}
        if not held & ({*series.coords} | {*series.attrs}):
            field = multi_echo.SIDECAR_NAMES.get(name)
            sidecar = f"{field} in a JSON sidecar beside INPUT" if field else "INPUT"
            raise InputError(f"estimate {method}: {scan} does not say {name}; state it as {sidecar} or with --protocol")
    options = arguments.parse(settings, [*chosen.options, "intervals"], f"method {method}")
    asked = dict(options)
    for name, value in options.items():
        if arguments.is_map(value) and explained.takes_map(chosen, name):
            options[name] = nifti.read_map(value, series, f"{name} map")
            option_maps[name] = Path(value)
    arguments.check_kinds(options, chosen.options | {"intervals": False}, explained.bounds_example(chosen))
    if second is not None and not echoes:
        if "pdff" not in chosen.options:
            raise InputError(f"estimate {method} takes one input; {second} is a second one")
        if "pdff" in options:
            given = option_maps.get("pdff", options["pdff"])
            raise InputError(f"the PDFF is given twice: as the map {second} and with --set pdff={given}")
        options["pdff"] = nifti.read_map(second, series, "PDFF map")
    labels = None
    if mask is not None:
        labels = label_maps.read_labels(mask, series, "mask")
    if noise_map is not None:
        noise_sd = maps.read_noise(noise_map, series, labels)
    target = out or Path(chosen.name)
    with maps.writing_estimate(target) as place, _progress(f"estimate {method}") as progress:
        report: dict[str, Any] = {"progress": progress} if _takes(chosen, "progress") else {}
        found = chosen(series, mask=None if labels is None else labels > 0, sigma=noise_sd, **options, **report)
        found.attrs.setdefault("protocol", nifti.settings(series))
        # whatever was set, bounds and lists too, and the names of maps
        found.attrs["options"] = json.dumps({**json.loads(found.attrs.get("options", "{}")), **asked})
        if isinstance(noise_sd, float):
            found.attrs.setdefault("noise_sd", noise_sd)
        if "reading" in series.attrs:
            found.attrs["reading"] = series.attrs["reading"]
        is_nifti = scan.name.lower().endswith(files.NIFTI_SUFFIXES)
        inputs: dict[str, Path | None] = {
            "scan": scan,
            "second": second,
            "mask": mask,
            "sigma": noise_map,
            **option_maps,
        }
        if is_nifti and echoes:
            inputs |= multi_echo.inputs(scan, second)
        elif is_nifti:
            inputs["bval"] = bval or _if_there(nifti.beside(scan, ".bval"))
            inputs["sidecar"] = _if_there(nifti.beside(scan, ".json"))
        if protocol is not None:
            inputs["protocol"] = _if_there(Path(protocol))
        template = nifti.geometry(scan) if is_nifti else None
        regions = None if labels is None else _regions(found, labels)
        maps.write_estimate(found, place, inputs, labels, template, nifti.affine_of(series), regions)
    print(f"wrote {target}")
    _print_status(found, set(chosen.options))


@app.command()
def validate(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="STUDY", help="TOML files, estimators or modalities; without: the default suite."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer replicates: an impression in seconds.")] = False,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the same folder.")] = False,
) -> None:
    """Put estimators on trial, and write the report.

    The report is OUT/index.html, with results.csv beside it; OUT is ./bonemri-report/ without -o.
    """
    from .. import validation
    from ..simulator import files

    folder = files.output_path(out or "bonemri-report", folder=True, netcdf=False)
    with files.filling(folder), _progress("validate") as progress:
        asked = tuple(studies) if studies else None
        trial = validation.run(asked, quick=quick, out=folder, resume=resume, progress=progress)
        page = trial.report(folder)
    _print_verdicts(trial, page)
    raise typer.Exit(0 if trial.passed else 1)


# ------------------------------------------------------------------------------------------------------- small parts


def _print_status(found: Any, options: Collection[str]) -> None:
    """Print how the voxels with signal fared, how many are apart, and what the estimate doubts as a whole."""
    from ..simulator import label_maps

    if "status" not in found:  # of another package's estimator
        return
    status, bits = found["status"].values, label_maps.flags(found)
    # air is no failure: what has no signal is counted apart, so that a share is one of voxels that could be fitted
    apart = {flag: (status & bits.get(flag, 0)) != 0 for flag in ("low_signal", "invalid")}
    asked = (status & bits.get("outside_mask", 0)) == 0
    seen = asked & ~apart["low_signal"] & ~apart["invalid"]
    counts = label_maps.counts(found, status[seen])
    n = max(int(seen.sum()), 1)
    shares = [f"{100 * count / n:.3g} % {flag.replace('_', ' ')}" for flag, count in counts.items() if count]
    print(": ".join([f"{int(seen.sum())} voxels with signal", *[", ".join(shares)] * bool(shares)]))
    others = [f"{(asked & is_).sum()} {flag.replace('_', ' ')}" for flag, is_ in apart.items() if (asked & is_).any()]
    if others:
        print(f"{int((asked & ~seen).sum())} voxels apart: {', '.join(others)}")
    for line in _doubts(found.attrs, options, counts.get("ambiguous", 0) / n):
        print(line)


def _doubts(attrs: Mapping[Any, Any], options: Collection[str], ambiguous: float) -> Iterator[str]:
    """What is to be known of the image as a whole, a line each; `ambiguous` is a part of the voxels with signal."""
    if "reading" in attrs:
        yield f"reading: {attrs['reading']}"
    if str(attrs.get("sigma", "")).startswith("unknown"):
        yield f"the noise SD is {attrs['sigma']}, and with it how sure a value is: give it with --sigma"
    for name in ("sign_doubt", "remark"):
        if name in attrs:
            yield f"doubt: {attrs[name]}"
    if ambiguous > MANY_AMBIGUOUS and attrs.get("field_range") == "not given":
        yield f"which is water is open in {ambiguous:.0%}: --set field_range=Hz where the field is known"
    weighting = str(attrs.get("T1_weighting", ""))
    half = attrs.get("pdff_read_at_half")
    if half is not None and f"{100 * half:.1f}" != "50.0":
        remedy = ": --set T1_correction=true" if "T1_correction" in options else ""
        yield f"not corrected for T1: a PDFF of 50 % reads {100 * half:.1f} %{remedy}"
    elif half is None and weighting.startswith("not corrected"):
        yield f"T1: {weighting}"


def _print_verdicts(trial: Any, page: Path) -> None:
    """Print a line a claim; the last line counts what holds, fails and is undecided."""
    names = [judgement.estimator for judgement in trial.judgements]
    width = max(map(len, ["estimator", *names]))
    print(f"{'verdict':<10} {'estimator':<{width}} claim")
    for judgement in trial.judgements:
        print(f"{judgement.verdict:<10} {judgement.estimator:<{width}} {judgement.sentence}")
    for text in (*trial.findings, *trial.reasons):
        print(text)
    print(f"report: {page}")
    print(trial.summary())


def _methods() -> list[str]:
    """Return the method names of our estimators, then of those that other packages have registered."""
    from importlib.metadata import entry_points

    from .. import estimators

    installed = {entry.name for entry in entry_points(group=estimators.ENTRY_POINTS)}
    return [*estimators.registry, *sorted(installed - set(estimators.registry))]


def _regions(found: Any, labels: Any) -> Any:
    """What a water-fat estimate says of each labelled region; None of others, and where no voxel size is known."""
    if "pdff" not in found or set(found["pdff"].dims) != {"z", "y", "x"}:
        return None
    from ..validation import regions

    with contextlib.suppress(InputError):  # the scan does not tell how large its voxels are
        return regions.by_label(found, labels, {"paraspinal": regions.PARASPINAL})
    return None


def _confounders(
    settings: Sequence[str] | None, sequence: str, rung: str, constants: Mapping[str, float]
) -> tuple[dict[str, Any], Any, dict[str, float]]:
    """Return the switches of a sequence that ``--set`` names, the scanner whose faults it names, and new constants."""
    from ..simulator import sequences
    from ..simulator.acquisition.scanner import Scanner

    switches = sequences.get(sequence).switches
    own = [name for name in constants if name not in switches]
    values = arguments.parse(settings, [*switches, *own, *SCANNER_FAULTS], f"sequence {sequence}")
    changes = {name: values.pop(name) for name in own if name in values}
    arguments.check_settings(changes)
    faults = {name: values.pop(name) for name in SCANNER_FAULTS if name in values}
    if faults and rung != "scan":
        raise InputError(f"--set {next(iter(faults))}: faults of the scanner go with --rung scan, not {rung}")
    arguments.check_kinds(faults, {name: getattr(Scanner, name) for name in SCANNER_FAULTS})
    return values, Scanner(**faults) if faults else None, changes


def _refuse_without(what: str, **options: Any) -> None:
    """Refuse options that mean nothing in a call that only lists."""
    for name, value in options.items():
        if value:
            raise InputError(f"--{'set' if name == 'settings' else name} goes with {what}")


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a callable has a parameter of this very name."""
    return name in inspect.signature(function).parameters


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Callable[[float], None] | None]:
    """Yield a function of the fraction done that draws a bar with the time left; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    done = TextColumn("{task.percentage:3.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)  # it pulses until the first fraction is known
        yield lambda fraction: bar.update(task, completed=fraction, total=1.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its status: 0, 1 (a claim fails) or 2 (the call is wrong)."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one call, and return its exit status; an error of the user is told in one line on standard error."""
    try:
        status = app(list(arguments), prog_name="bonemri", standalone_mode=False)
        sys.stdout.flush()
    except InputError as error:
        return _tell(str(error))
    except (typer.Abort, KeyboardInterrupt):
        print("bonemri: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as in `bonemri estimate | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a file that vanished meanwhile
        where = f"{error.filename}: " if error.filename else ""
        return _tell(f"{where}{error.strerror or error}; nothing was written")
    except Exception as error:
        # A wrong call. Its class is click's UsageError, wherever this version of typer keeps click.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # `bonemri` alone
            print(error.format_message())
            return 0
        context = getattr(error, "ctx", None)
        place = context.command_path if context is not None else "bonemri"
        message = error.format_message().strip().rstrip(".")
        if context is not None and message.startswith("No such command"):
            message += f"; the verbs are {', '.join(context.command.list_commands(context))}"
        if message.startswith("Missing argument") and place.endswith(" simulate"):
            from ..simulator import protocols

            message += f": a .toml or .seq file, or one of {', '.join(protocols)}"
        if message.startswith("Got unexpected extra argument") and place.endswith(" estimate"):
            message += "; of a set of files, one an echo, name any one: the others are found"
        return _tell(f"{message}; see {place} --help")
    return status if isinstance(status, int) else 0


def _tell(message: str) -> int:
    print(f"bonemri: {' '.join(message.split())}", file=sys.stderr)
    return 2
