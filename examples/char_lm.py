"""Train a character language model: embedding, LSTM, linear layer.

    python examples/char_lm.py                     # on the English text that ships inside Python
    python examples/char_lm.py --text novel.txt    # on any UTF-8 text
    python examples/char_lm.py --resume            # go on where the last run stopped
    cuframe run --nproc-per-node 2 examples/char_lm.py      # in two processes, each with half of every batch
    cuframe run --nproc-per-node gpu --max-restarts 3 examples/char_lm.py    # one a GPU; after a crash they resume

Checkpoint, loss curve and sample land in --out (default runs/char_lm). Ctrl-C stops after the step under way and
leaves a checkpoint. However many processes there are, the loss curve is the same, and any other number of them can
resume. Read it from the top to the bottom: that is how a training script in cuframe looks.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import cuframe as cf
import cuframe.distributed as dist
from cuframe import nn, optim
from cuframe.distributed import checkpoint
from cuframe.nn import functional as F

LOG2 = math.log(2.0)
console = Console(highlight=False, soft_wrap=True)


class CharLM(nn.Module):
    """Next-character logits from a sequence of characters, with the hidden state handed from call to call."""

    def __init__(self, vocabulary: int, embedding: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden)
        self.out = nn.Linear(hidden, vocabulary)

    def forward(self, ids: cf.Tensor, state: tuple | None = None) -> tuple:
        h, state = self.lstm(self.embed(ids), state)  # [T, N] -> [T, N, E] -> [T, N, H]
        return self.out(h), state  # [T, N, V]


def fail(message: str, code: int = 2) -> NoReturn:
    console.print("error:", message, style="red", markup=False)
    if dist.is_initialized():
        dist.barrier()  # the launcher ends all as soon as one leaves, and rank 0 must have said why
    sys.exit(code)


def read_text(path: str | None) -> str:
    if path is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            fail("this Python comes without pydoc_data; give a text with --text FILE")
        return "\n".join(topics.values())
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        fail(f"--text: no file {path!r}")
    except UnicodeDecodeError as error:
        fail(f"--text: {path!r} is not UTF-8 (byte {error.start}); convert it first, e.g. with iconv")
    except OSError as error:
        fail(f"--text: cannot read {path!r}: {error.strerror}")
    if not text:
        fail(f"--text: {path!r} is empty")
    return text


def streams(ids: np.ndarray, batch: int) -> np.ndarray:
    """The text as `batch` parallel streams, [T, N]; the few characters that do not fill a row are left out."""
    rows = len(ids) // batch
    return np.ascontiguousarray(ids[: rows * batch].reshape(batch, rows).T)


def mean_over_ranks(device: cf.Device, *values: float) -> Sequence[float]:
    """Each value averaged over the processes that train together."""
    if dist.get_world_size() == 1:
        return values
    together = cf.tensor(values, dtype=cf.float64, device=device)
    dist.all_reduce(together, "avg")
    return together.tolist()


def whole(state: tuple) -> tuple:
    """The hidden state of the streams of all processes: [L, N / ranks, H] each -> [L, N, H]."""
    parts = [[cf.empty_like(s) for _ in range(dist.get_world_size())] for s in state]
    for part, s in zip(parts, state):
        dist.all_gather(part, s)
    return tuple(cf.cat(part, dim=1) for part in parts)


def validate(model: CharLM, data: np.ndarray, steps: int) -> float:
    """Bits per character over the validation streams of all processes."""
    model.eval()
    total, state = 0.0, None
    with cf.no_grad():
        for t in range(0, len(data) - 1, steps):
            chunk = data[t : t + steps + 1]  # [T + 1, N]
            logits, state = model(cf.from_numpy(chunk[:-1]).to(model.out.weight.device), state)
            target = cf.from_numpy(chunk[1:].reshape(-1)).to(logits.device)
            total += F.cross_entropy(logits.flatten(0, 1), target, reduction="sum").item()
    model.train()
    return mean_over_ranks(logits.device, total / (len(data) - 1) / data.shape[1] / LOG2)[0]


def sample(model: CharLM, vocabulary: str, prompt: str, length: int, temperature: float) -> str:
    """`prompt` continued by `length` characters."""
    model.eval()
    known = {c: i for i, c in enumerate(vocabulary)}
    prompt = "".join(c for c in prompt if c in known) or vocabulary[0]
    ids, state, text = [known[c] for c in prompt], None, prompt
    with cf.no_grad():
        for _ in range(length):
            x = cf.tensor(ids, device=model.out.weight.device).unsqueeze(1)  # [T, 1]
            logits, state = model(x, state)
            ids = [cf.multinomial(F.softmax(logits[-1, 0] / temperature, dim=0), 1).item()]
            text += vocabulary[ids[0]]
    model.train()
    return text


def plot(path: Path, losses: list, validation: list, steps_an_epoch: int) -> bool:
    """Draw the loss curve; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    bits = np.asarray(losses) / LOG2
    width = max(1, min(len(bits), steps_an_epoch // 10))
    smooth = np.convolve(bits, np.ones(width) / width, "valid")
    axes.plot(np.arange(len(bits)) / steps_an_epoch, bits, lw=0.4, alpha=0.4, color="tab:blue")
    axes.plot((np.arange(len(smooth)) + width / 2) / steps_an_epoch, smooth, color="tab:blue", label="training")
    axes.plot(np.arange(1, len(validation) + 1), validation, "o-", color="tab:orange", label="validation")
    axes.set(xlabel="epoch", ylabel="bits per character", title="Character language model", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def parse(argv: list[str] | None) -> argparse.Namespace:
    def positive(kind: type) -> object:
        def convert(text: str) -> float:
            value = kind(text)
            if value <= 0:
                raise argparse.ArgumentTypeError(f"must be positive, got {text}")
            return value

        convert.__name__ = kind.__name__
        return convert

    p = argparse.ArgumentParser(description="Train a character language model (embedding, LSTM, linear layer).")
    p.add_argument("--text", help="a UTF-8 text file; by default the English text inside Python's pydoc")
    p.add_argument("--out", default="runs/char_lm", help="folder for checkpoint, curve and sample (%(default)s)")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    p.add_argument("--epochs", type=positive(int), default=8)
    p.add_argument("--batch-size", type=positive(int), default=32)
    p.add_argument("--steps", type=positive(int), default=64, help="characters a step of backpropagation sees")
    p.add_argument("--embedding", type=positive(int), default=64)
    p.add_argument("--hidden", type=positive(int), default=256)
    p.add_argument("--lr", type=positive(float), default=4e-3)
    p.add_argument("--clip", type=positive(float), default=1.0, help="largest gradient norm")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default=None, help="cpu, cuda[:i] or sim; by default cuda where there is a GPU")
    p.add_argument("--save-every", type=positive(float), default=60.0, help="seconds between checkpoints")
    p.add_argument("--prompt", default="The ", help="start of the sample")
    p.add_argument("--sample", type=positive(int), default=300, help="characters of the sample")
    p.add_argument("--temperature", type=positive(float), default=0.8)
    return p.parse_args(argv)


SHAPING = ("batch_size", "steps", "embedding", "hidden", "lr", "clip", "seed")  # what a resumed run must share


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # Alone this is a group of one. With GPUs ranks talk by NCCL, unless all are to use the device that was asked for.
    dist.init_process_group("shm" if args.device else None)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    console.quiet = rank > 0
    text = read_text(args.text)
    vocabulary = "".join(sorted(set(text)))
    index = {c: i for i, c in enumerate(vocabulary)}
    ids = np.array([index[c] for c in text], np.int64)
    cut = len(ids) * 9 // 10
    train, valid = streams(ids[:cut], args.batch_size), streams(ids[cut:], args.batch_size)
    if len(train) <= args.steps or len(valid) < 2:
        needed = max((args.steps + 1) * args.batch_size * 10 // 9 + 10, 20 * args.batch_size)
        fail(f"the text has {len(text):,} characters; this batch size and number of steps need {needed:,}")
    if args.batch_size % ranks:
        fail(f"--batch-size: {ranks} processes cannot have equal shares of {args.batch_size} streams")
    share = args.batch_size // ranks
    mine = slice(rank * share, (rank + 1) * share)  # this process's streams
    train, valid = train[:, mine], valid[:, mine]
    steps_an_epoch = (len(train) - 1) // args.steps
    total_steps = args.epochs * steps_an_epoch

    cf.manual_seed(args.seed)
    gpus = cf.cuda.device_count()
    device = cf.device(args.device or (f"cuda:{dist.get_local_rank() % gpus}" if gpus else "cpu"))
    model = CharLM(len(vocabulary), args.embedding, args.hidden).to(device)
    trained = nn.parallel.DistributedDataParallel(model) if ranks > 1 else model  # averages gradients over the ranks
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.safetensors"
    step, state, seconds = 0, None, 0.0
    losses: list[float] = []
    validation: list[float] = []
    settings = {name: getattr(args, name) for name in SHAPING} | {"vocabulary": vocabulary, "characters": len(text)}

    if args.resume and not checkpoint.exists(path):
        fail(f"--resume: there is no {path}")
    if args.resume or checkpoint.of_this_job(path):
        saved = checkpoint.load(path, device)
        for name, value in settings.items():
            if saved["settings"][name] != value:
                fail(f"--resume: {name} was {saved['settings'][name]!r} in {path}, now it is {value!r}")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        cf.set_rng_state(saved["rng"])
        step, seconds = saved["step"], saved["seconds"]
        state = saved["state"] and tuple(s[:, mine].contiguous() for s in saved["state"])
        losses, validation = saved["losses"].tolist(), saved["validation"]
        console.print(f"resuming after step {step:,} of {total_steps:,}")

    def save() -> None:  # by all processes at the same step
        everything = {
            "settings": settings, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "rng": cf.get_rng_state(), "step": step, "state": whole(state), "seconds": seconds,
            "losses": np.array(losses, np.float64), "validation": validation,
        }  # fmt: skip
        try:
            checkpoint.save(everything, path)
        except OSError as error:
            fail(f"{path}: {error.strerror}", code=1)  # the checkpoint before it is intact

    # A signal lets the step under way end, so that what is saved is one consistent moment; a second one stops at once.
    stop: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)

    size = sum(p.numel() for p in model.parameters())
    where = f"{device}, {ranks} processes" if ranks > 1 else device
    console.print(f"{len(text):,} characters, {len(vocabulary)} different; {size:,} parameters; {where}")
    bar = Progress(
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"), BarColumn(bar_width=None),
        TextColumn("step {task.completed}/{task.total} loss {task.fields[loss]:.3f} {task.fields[rate]:,.0f} chars/s"),
        TimeRemainingColumn(), console=console, refresh_per_second=4, disable=rank > 0 or not console.is_terminal,
    )  # fmt: skip
    started = saved_at = shown_at = time.perf_counter()
    before, first_step, stopped = seconds, step, 0.0
    with bar:
        task = bar.add_task("", total=total_steps, completed=step, epoch=1, epochs=args.epochs, loss=math.nan, rate=0)
        while step < total_steps and not stopped:
            dist.mark_step(step)  # for the launcher's last words, should this process die
            epoch, t = divmod(step, steps_an_epoch)
            if t == 0:
                state = None  # the streams start anew
            chunk = train[t * args.steps : (t + 1) * args.steps + 1]  # [T + 1, N]
            x = cf.from_numpy(chunk[:-1]).to(device)
            y = cf.from_numpy(chunk[1:].reshape(-1)).to(device)
            logits, state = trained(x, state)
            loss = F.cross_entropy(logits.flatten(0, 1), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            optimizer.step()
            state = tuple(s.detach() for s in state)
            due = time.perf_counter() - saved_at > args.save_every
            mean, stopped, due = mean_over_ranks(device, loss.item(), bool(stop), due)  # they save and stop together
            losses.append(mean)
            step += 1

            now = time.perf_counter()
            seconds = before + now - started
            if now - shown_at > 0.2:
                shown_at = now
                rate = (step - first_step) * args.batch_size * args.steps / (now - started)
                bar.update(task, completed=step, epoch=epoch + 1, loss=np.mean(losses[-20:]), rate=rate)
            if step % steps_an_epoch == 0:
                validation.append(validate(model, valid, args.steps))
                seconds = before + time.perf_counter() - started
                rate = (step - first_step) * args.batch_size * args.steps / (time.perf_counter() - started)
                console.print(
                    f"epoch {epoch + 1}/{args.epochs}: training {np.mean(losses[-steps_an_epoch:]) / LOG2:.3f}, "
                    f"validation {validation[-1]:.3f} bits/char, {rate:,.0f} chars/s"
                )
                save()
            elif due:
                saved_at = now
                save()
        bar.update(task, completed=step)

    if stopped:
        save()
        dist.destroy_process_group()
        number = stop[0] if stop else signal.SIGTERM  # that of another process
        console.print(f"stopped by {signal.Signals(number).name} after step {step:,}; go on with --resume")
        return 128 + number
    dist.destroy_process_group()
    if rank > 0:
        return 0
    written = sample(model, vocabulary, args.prompt, args.sample, args.temperature)
    (out / "sample.txt").write_text(written + "\n", encoding="utf-8")
    console.rule("sample")
    console.print(written, markup=False)
    console.rule()
    if plot(out / "loss.png", losses, validation, steps_an_epoch):
        console.print(f"loss curve: {out / 'loss.png'}   checkpoint: {path}")
    else:
        console.print(f"checkpoint: {path}   (pip install -e '.[plot]' draws the loss curve, too)", markup=False)
    console.print(f"validation {validation[-1]:.2f} bits/char after {args.epochs} epochs, {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
