"""Turn dates as people in 45 locales write them into ISO form, character by character, with a Transformer.

    python examples/dates_transformer.py --out runs/dates_transformer

Babel writes random days of 1970 to 2039 in its four formats, from "5/3/07" to "понедельник, 5 марта 2007 г."; the
locale is the first token, because nobody can tell 5/3 from 3/5 without it. Days are split into training, validation and
test: the closing figure is over days that training has shown in no language. It takes three to five minutes on two
cores, and Babel and matplotlib (pip install -e '.[examples]').
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import cuframe as cf
from cuframe import nn, optim
from cuframe.nn import functional as F

try:
    from babel.dates import format_date
    from matplotlib.figure import Figure
except ImportError:
    sys.exit("this example needs Babel and matplotlib: pip install -e '.[examples]'")

LOCALES = """ar bg ca cs cy da de el en_GB en_US es et eu fa fi fr ga he hi hr hu id is it ja ko lt lv ms nb nl pl pt_BR
    ro ru sk sl sv sw th tr uk vi zh zh_TW""".split()
FORMATS = ("short", "medium", "long", "full")
DATES = np.array([datetime.date(1970, 1, 1) + datetime.timedelta(n) for n in range(25_567)])  # no century is in doubt
OUTPUT, START, LONGEST = "0123456789-", 11, 64  # what comes out; what the decoder sees first; tokens of a date
console = Console(highlight=False, soft_wrap=True)


def write(date: datetime.date, locale: str, form: str) -> list[str]:
    """The locale and the characters of a date."""
    return [locale, *format_date(date, form, locale)]


def draw(dates: np.ndarray, size: int, rng: np.random.Generator) -> tuple[list[list[str]], list[str]]:
    """Random dates as they are written, and their ISO form."""
    picks, locales, forms = (rng.choice(a, size) for a in (dates, LOCALES, FORMATS))
    return [write(*w) for w in zip(picks, locales.tolist(), forms.tolist())], [d.isoformat() for d in picks]


class Reader(nn.Module):
    """Logits of the next ISO character from what is written and the ISO characters so far."""

    def __init__(self, size: int = 64) -> None:
        super().__init__()
        tokens = {t for d in DATES[:800:11] for k in LOCALES for f in FORMATS for t in write(d, k, f)}
        self.known = {t: i for i, t in enumerate(sorted(tokens), 1)}  # 0 is padding
        self.source, self.target = nn.Embedding(1 + len(tokens), size, padding_idx=0), nn.Embedding(12, size)
        self.source_place, self.target_place = nn.Embedding(LONGEST, size), nn.Embedding(10, size)
        self.transformer = nn.Transformer(size, 4, 2, 2, 4 * size, 0.0, batch_first=True, norm_first=True)
        self.out = nn.Linear(size, len(OUTPUT))

    def encode(self, writings: list[list[str]]) -> tuple[cf.Tensor, cf.Tensor]:
        """What the encoder makes of them, [N, S, E], and where they are padding, [N, S]."""
        ids = nn.utils.rnn.pad_sequence([cf.tensor([self.known[t] for t in w]) for w in writings], batch_first=True)
        ids = ids.to(self.out.weight.device)
        x = self.source(ids) + self.source_place.weight[: ids.shape[1]]
        return self.transformer.encoder(x, src_key_padding_mask=ids == 0), ids == 0

    def decode(self, memory: cf.Tensor, padding: cf.Tensor, target: cf.Tensor) -> cf.Tensor:
        """Logits [N, T, 11] of what follows each of the characters `target` [N, T]."""
        x = self.target(target) + self.target_place.weight[: target.shape[1]]
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=memory.device)
        return self.out(self.transformer.decoder(x, memory, causal, memory_key_padding_mask=padding))

    @cf.no_grad()
    def read(self, writings: list[list[str]]) -> list[str]:
        """The most likely next character, ten times over."""
        memory, padding = self.encode(writings)
        ids = cf.full((len(writings), 1), START, device=memory.device)
        for _ in range(10):
            ids = cf.cat([ids, self.decode(memory, padding, ids)[:, -1:].argmax(2)], dim=1)
        return ["".join(OUTPUT[i] for i in row[1:]) for row in ids.tolist()]


def plot(path: Path, model: Reader, writings: list[list[str]]) -> None:
    """Draw which characters of the source the last layer looks at for each character that it writes."""
    layer, calls = model.transformer.decoder.layers[-1].multihead_attn, []
    figure = Figure(figsize=(10, 9), layout="constrained")
    for axes, writing in zip(figure.subplots(len(writings)), writings):
        hook = layer.register_forward_pre_hook(lambda module, args: calls.append(args))
        (reading,) = model.read([writing])
        hook.remove()
        weights = layer(*calls[-1][:3], need_weights=True)[1][0]  # [T, S]
        axes.imshow(weights.detach().cpu().numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set(xticks=range(len(writing)), xticklabels=writing, yticks=range(10), yticklabels=reading)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("runs/dates_transformer"), help="folder for the picture")
    p.add_argument("--steps", type=int, default=800, help="training steps (%(default)s)")
    p.add_argument("--test", type=int, default=2000, help="writings of unseen days to read in the end (%(default)s)")
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cuda" if cf.cuda.is_available() else "cpu")
    args = p.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    cf.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    train, valid, test = np.split(rng.permutation(DATES), [len(DATES) * 8 // 10, len(DATES) * 9 // 10])
    model = Reader().to(args.device)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)
    console.print(f"{len(train):,} days to train, {len(valid):,} to validate, {len(test):,} to test; on {args.device}")
    started = time.perf_counter()
    shown = TextColumn("step {task.completed}/{task.total} loss {task.fields[loss]:.3f}")
    with Progress(BarColumn(bar_width=None), shown, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=args.steps, loss=np.nan)
        for step in range(1, args.steps + 1):
            writings, truths = draw(train, 128, rng)
            target = cf.tensor([[START, *map(OUTPUT.index, t)] for t in truths], device=args.device)  # [N, 11]
            logits = model.decode(*model.encode(writings), target[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update(task, advance=1, loss=loss.item())
            if step % 100 == 0:
                writings, truths = draw(valid, 500, rng)
                right = np.mean([r == t for r, t in zip(model.read(writings), truths)])
                console.print(f"step {step}: {right:.1%} of 500 writings of validation days exact")

    writings, truths = draw(test, args.test, rng)
    readings = [r for n in range(0, len(writings), 500) for r in model.read(writings[n : n + 500])]
    plot(args.out / "attention.png", model, [write(test[0], k, "full") for k in ("ru", "pt_BR", "vi")])
    for (locale, *text), reading, truth in list(zip(writings, readings, truths))[:8]:
        console.print(f"{locale:5}  {reading}{' ' if reading == truth else '!'}  {''.join(text)}", markup=False)
    console.print(f"attention: {args.out / 'attention.png'}   {time.perf_counter() - started:.0f} s")
    right = np.mean([r == t for r, t in zip(readings, truths)])
    console.print(f"{right:.1%} of {args.test:,} writings of unseen days exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
