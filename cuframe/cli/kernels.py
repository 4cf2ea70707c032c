"""List, compile and inspect the CUDA kernels; needs no GPU."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

DEFAULT_ARCHITECTURES = "sm_75,sm_80,sm_90"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | build | show | tune | clean")
    commands.add_parser("list", help="the kernels, their files and instances")
    build = commands.add_parser("build", help="compile all into the cache and print what each takes")
    build.add_argument("pattern", nargs="?", default="", help="only kernels whose instance contains this")
    build.add_argument("--arch", default=DEFAULT_ARCHITECTURES,
                       help="architectures, separated by commas, or 'all' (default: %(default)s)")
    build.add_argument("--jobs", type=int, default=None, help="processes (default: one a core)")
    build.add_argument("--update", action="store_true", help="put what was found into the committed table")
    build.add_argument("--quiet", action="store_true", help="print complaints and the sum only")
    show = commands.add_parser("show", help="a kernel's declaration and source")
    show.add_argument("name")
    tune = commands.add_parser("tune", help="measure on a GPU which launches are fastest, and keep that")
    tune.add_argument("--device", default="cuda", help="the GPU (default: %(default)s)")
    tune.add_argument("--seconds", type=float, default=270.0, help="how long it may take (default: 270)")
    tune.add_argument("--output", default=None, metavar="FILE",
                      help="where to write the table (default: where cuframe looks first, in the cache folder)")
    commands.add_parser("clean", help="empty the cache of compiled kernels")


def run(args: argparse.Namespace) -> int:
    return {"list": _list, "build": _build, "show": _show, "tune": _tune, "clean": _clean}[args.command](args)


def _kernels() -> list[Any]:
    from cuframe.gpu import all_kernels

    return all_kernels()


def _list(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    table = Table("kernel", "file", "instances")
    for kernel in _kernels():
        table.add_row(kernel.name, kernel.file, "\n".join(kernel.instances()))
    Console().print(table)
    return 0


def _show(args: argparse.Namespace) -> int:
    found = [k for k in _kernels() if k.name == args.name]
    if not found:
        import difflib

        near = difflib.get_close_matches(args.name, [k.name for k in _kernels()], n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "`cuframe kernels list` names them"
        print(f"cuframe kernels: no kernel {args.name!r}; {hint}", file=sys.stderr)
        return 2
    kernel = found[0]
    print(f"// {kernel.source.path}")
    for instance in kernel.instances():
        print(f"// {instance}")
    print(kernel.source.text, end="")
    return 0


def _tune(args: argparse.Namespace) -> int:
    from datetime import date
    from pathlib import Path

    import cuframe as cf
    from cuframe.cuda import tune, tuned

    try:
        where = cf.Device(args.device)
        if where.type != "cuda":
            raise RuntimeError(f"device '{where}' is none; times of anything else say nothing about one")
        like = cf.zeros(1, device=where).array
    except (RuntimeError, ValueError) as error:
        print(f"cuframe kernels: tune measures on a GPU: {error}", file=sys.stderr)
        return 2
    bench = tune.GpuBench(like, tune.event_time)
    path = tuned.tuned_path(bench.facts.arch) if args.output is None else Path(args.output)
    with cf.cuda.device(where.index or 0):
        name = cf.cuda.get_device_name(where.index or 0)
        print(f"{name}, {bench.facts.arch}: {args.seconds:.0f} s of measuring")
        found, left = tune.search(bench, args.seconds, say=lambda text: print(text, flush=True))
    tuned.write(path, tune.report(found, gpu=name, arch=bench.facts.arch, cuframe=cf.__version__,
                                  date=date.today().isoformat()))
    print(f"wrote {path}: {len(found['measured'])} sizes" + (f", {left} more had no time left" if left else ""))
    return 0


def _clean(args: argparse.Namespace) -> int:
    from cuframe.cuda.cache import Cache

    cache = Cache()
    count, size = cache.clear()
    print(f"removed {count} files, {size / 1e6:.1f} MB, from {cache.folder}")
    return 0


def _files(pattern: str, arch: str) -> dict[tuple[str, tuple[str, ...]], dict[str, int]]:
    """(file, options) -> {instance: place of its kernel}: what is compiled together for an architecture."""
    found: dict[tuple[str, tuple[str, ...]], dict[str, int]] = {}
    for place, kernel in enumerate(_kernels()):
        for expression in kernel.instances(arch):
            if pattern in expression:
                found.setdefault((kernel.file, kernel.options), {})[expression] = place
    return found


def _compile(pattern: str, key: tuple[str, tuple[str, ...]], arch: str) -> list[tuple[str, str, int, Any, str]]:
    """In a worker process: the instances of a file; it is named by its key, since kernels cannot travel."""
    from cuframe.cuda.compile import compile_file
    from cuframe.cuda.nvrtc import CompileError

    instances = _files(pattern, arch)[key]
    kernel = _kernels()[next(iter(instances.values()))]
    try:
        made = compile_file(kernel.source, list(instances), arch, kernel.options)
    except CompileError as e:
        return [(arch, "", -1, None, str(e))]
    return [(arch, expression, place, made[expression].resources, "") for expression, place in instances.items()]


def _build(args: argparse.Namespace) -> int:
    from rich.progress import track

    from cuframe.cuda import nvrtc, resources

    version = ".".join(map(str, nvrtc.version()))
    able = nvrtc.architectures()
    wanted = list(resources.ARCHITECTURES) if args.arch == "all" else [a.strip() for a in args.arch.split(",")]
    unknown = [a for a in wanted if a not in resources.ARCHITECTURES]
    if unknown:
        print(f"cuframe kernels: unknown architecture {unknown[0]!r}; known: {', '.join(resources.ARCHITECTURES)}",
              file=sys.stderr)
        return 2
    left_out = [a for a in wanted if int(a[3:].rstrip("a")) not in able]
    start = time.perf_counter()
    kernels = _kernels()
    baseline = resources.read_baseline()

    def effort(arch: str, instances: Iterable[str]) -> int:
        """Kernels of many registers are long: so far, the sum told which of two files takes longer to compile."""
        rows: dict[str, list[int]] = baseline["kernels"].get(arch) or next(iter(baseline["kernels"].values()), {})
        return sum(rows.get(expression, [64])[0] for expression in instances)

    jobs = [(effort(a, instances), (args.pattern, key, a)) for a in wanted if a not in left_out
            for key, instances in _files(args.pattern, a).items()]
    # the longest first, so that no core waits for it in the end
    jobs.sort(key=lambda job: -job[0])
    done: list[tuple[str, str, int, Any, str]] = []
    with ProcessPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(_compile, *job) for _, job in jobs]
        for future in track(as_completed(futures), "compiling", total=len(jobs), transient=True):
            done += future.result()
    done.sort(key=lambda row: (wanted.index(row[0]), row[2], row[1]))
    known = baseline["kernels"] if baseline["nvrtc"] == version else {}
    problems = list(_report(done, kernels, known, quiet=args.quiet))
    for arch in left_out:
        print(f"{arch}: NVRTC {version} cannot compile for it; left out")
    if baseline["nvrtc"] not in (None, version):
        print(f"the committed table is of NVRTC {baseline['nvrtc']}, this is {version}: registers not compared")
    print(f"{len(kernels)} kernels, {len(done)} instances for {', '.join(a for a in wanted if a not in left_out)}, "
          f"{time.perf_counter() - start:.1f} s, NVRTC {version}")
    for text in problems:
        print(f"error: {text}", file=sys.stderr)
    if args.update and not problems:
        table: dict[str, dict[str, Any]] = {}
        for arch, expression, _, used, _ in done:
            table.setdefault(arch, {})[expression] = used
        resources.write_baseline(version, table, args.pattern)
        print(f"wrote {resources.baseline_path()}")
    return 1 if problems else 0


def _report(done: list[tuple[str, str, int, Any, str]], kernels: list[Any], known: dict[str, Any],
            quiet: bool) -> Iterable[str]:
    """Print a row per instance; yield what is wrong."""
    from cuframe.cuda import resources

    width = max((len(row[1]) for row in done), default=0)
    if not quiet:
        print(f"{'arch':7} {'kernel':{width}} registers  shared  stack spills occupancy")
    for arch, expression, index, used, error in done:
        if error:
            yield error
            continue
        if not quiet:
            share = resources.occupancy(arch, used, kernels[index].threads)
            print(f"{arch:7} {expression:{width}} {used.registers:9} {used.shared:7} {used.stack:6} {used.spills:6} "
                  f"{share:9.0%}")
        yield from resources.complaints(arch, expression, used, known.get(arch, {}).get(expression))
