"""Write docs/gallery.md, what language runs look like: half a minute, with the extras language and report.

python scripts/draw_gallery.py
"""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import matplotlib
import torch

import motes
from motes.language import demo
from motes.language.compression import compress
from motes.language.gallery import laws_html, local_and_global, surprise, surprise_html
from motes.report.plots import plot_genealogy
from motes.report.style import PAPER, styled

DOCS = Path(__file__).parent.parent / "docs"
PLAIN = "The sea is salty because rivers carry minerals from the rocks into it, and only the water leaves again."
ODD = "The sea is salty because accountants carry pianos from the rocks into it, and only the water leaves again."
PAGE = """# Gallery

Pictures of language runs, made by `scripts/draw_gallery.py` with SmolLM2-135M-Instruct. The functions are in
`motes.language.gallery`; they give plain HTML that fits any page.

## How surprising each token is

The deeper the colour, the less the model expected the token: −log of its probability, from 0 to 12 nats and more. Point
at a token for the number, and for the entropy of the law that it came from.

{plain}

The same with two other words, which cost most of what it costs more:

{odd}

The same numbers are a code: [arithmetic coding](evaluation.md#compression) writes the first text in {plain_bits} bits
and the second in {odd_bits}, {plain_rate:.2f} and {odd_rate:.2f} a character, the end included.

## Local and global laws

Asked "{question}", the model may only reply with one of these. *Local* is what masking
alone draws: each token is renormalised over what is allowed, so a reply that begins likely wins, however unlikely its
end is. *Global* is the
model's own law of whole replies, given that the reply is one of them; the weights of the run make the one of the other.

{laws}

Their total variation distance is {distance:.2f}. From one run of {particles} particles without resampling, so that the
draws themselves follow the local law.

## Who descends from whom

A run under a JSON schema, {n} particles, resampled {resampled} times. Each line is a particle; lines that meet going
back share a beginning, and grey ones ran into what the model found unlikely and died out. The bars at the end are the
final weights. The log-probability that the model's own reply is valid comes out at {log_z} ± {se:.1f} nats.

![Family tree of a run under a constraint](images/gallery_genealogy.svg)

The heaviest texts:

{texts}
"""
QUESTION = "What should I have for breakfast?"
REPLIES = r"(Eggs|Eggs and toast|Oatmeal|Oatmeal with fruit and nuts|You could have porridge|Toast)\."


def picture(run: motes.Run) -> None:
    buffer = io.StringIO()
    with styled(PAPER), matplotlib.rc_context({"svg.hashsalt": "gallery"}):
        figure = plot_genealogy(run)
        figure.set_size_inches(6.0, 4.2)  # so that its words can be read on a phone
        nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"\n\s*", "\n", re.sub(r"(\d+\.\d\d)\d+", r"\1", svg))
    (DOCS / "images" / "gallery_genealogy.svg").write_text(svg)


def main() -> None:
    began = time.time()
    model = motes.language.load("smollm2")
    plain, odd = (compress(model, text) for text in (PLAIN, ODD))
    constraint = motes.language.regex(REPLIES)
    task = motes.Generation(model, QUESTION, constraint=constraint, max_tokens=12)
    rows = local_and_global(motes.sample(task, 4000, seed=0, ess_threshold=0.0, progress=False))

    run = motes.sample(demo.json_generation(model), 32, seed=3, progress=False)
    picture(run)
    best = torch.argsort(run.weight, descending=True)
    heavy = list(dict.fromkeys(run.texts[i] for i in best.tolist()))[:3]
    page = PAGE.format(
        plain=surprise_html(surprise(model, PLAIN)),
        odd=surprise_html(surprise(model, ODD)),
        plain_bits=plain.bits,
        odd_bits=odd.bits,
        plain_rate=plain.bits_per_character,
        odd_rate=odd.bits_per_character,
        question=QUESTION,
        laws=laws_html(rows),
        distance=0.5 * sum(abs(a - b) for _, a, b in rows),
        particles=4000,
        n=run.n,
        resampled=int(run.trace["resampled"].sum()),
        log_z=f"{run.log_evidence:.1f}".replace("-", "−"),
        se=run.log_evidence_se,
        texts="\n".join(f"- `{text}`" for text in heavy),
    )
    (DOCS / "gallery.md").write_text(page)
    print(f"docs/gallery.md: {len(page) / 1000:.0f} kB, {time.time() - began:.0f} s")  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
