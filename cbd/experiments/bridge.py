"""E15, Q10: a chain whose source has another architecture and vocabulary, by every bridge and by none."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cbd.errors import require
from cbd.experiments.run import Design, Measurement, row_labels
from cbd.experiments.scales.base import HomeGrown, Scale
from cbd.experiments.starts import inherited, initialised
from cbd.experiments.tasks import scored
from cbd.realize import realize, store
from cbd.recipes.base import Recipe
from cbd.recipes.data import Written
from cbd.recipes.evaluation import BitsPerByte
from cbd.recipes.models import Chain, Generated, Random, Source
from cbd.recipes.training import Bridged, BridgeLoss, Scored, Trained
from cbd.report.names import ALM, AS_IS, RAW, RAW_COMPUTE, SEQUENCE, SOURCE, ULD

PROMPT = "And the king said to"
SENTENCE = "In the beginning God made the heaven and the earth."


@dataclass(frozen=True)
class Bridges:
    """All ways from one source to a proxy, at one seed; what the source does is shared by all seeds."""

    scale: Scale
    source: Source | HomeGrown
    seed: int

    @property
    def llm(self) -> Recipe:
        """The source; one that is trained here has its own vocabulary."""
        if isinstance(self.source, Source):
            return self.source
        corpus = replace(self.scale.corpus, vocab_size=self.source.spec.vocab)
        return Trained(Random(self.source.spec, corpus), corpus, self.source.training)

    @property
    def text(self) -> Generated:
        sampling = self.scale.bridge.sampling
        corpus = self.scale.corpus if sampling.opening == "document" else None
        return Generated(self.llm, corpus, sampling)

    @property
    def scored(self) -> Scored:
        dial = self.scale.bridge
        return Scored(self.llm, self.scale.corpus, dial.scored, dial.context)

    def proxies(self) -> dict[str, Recipe]:
        """Anchor zero by every method, from the same weights; a public checkpoint also as it is."""
        corpus, dial = self.scale.corpus, self.scale.bridge
        public = isinstance(dial.proxy, Source)
        start = dial.proxy if public else Random(dial.proxy, corpus, self.seed)
        training = replace(dial.proxy_training, seed=self.seed)
        sequence = Trained(start, Written(self.text, corpus), training)
        raw = Trained(start, corpus, training)
        more = self.text.flops // raw.flops_per_token
        return ({AS_IS: start} if public else {}) | {
            SEQUENCE: sequence,
            ALM: Bridged(start, self.scored, training, BridgeLoss("alm")),
            ULD: Bridged(start, self.scored, training, BridgeLoss("uld", 0.9)),
            RAW: raw,
            RAW_COMPUTE: Trained(start, corpus, replace(training, tokens=training.tokens + more)),
        }

    def chain(self, proxy: Recipe) -> Chain:
        """The chain below a proxy, inherited and distilled step by step on the corpus."""
        dial = self.scale.bridge
        training = replace(dial.anchor_training, seed=self.seed)
        return inherited(proxy, dial.anchors, self.scale.corpus, training, self.scale.loss)


def runs_at(scale: Scale) -> bool:
    """Whether `cbd run all` runs this at a scale: where a source of another family is at hand."""
    return scale.bridge is not None


def bridges(scale: Scale, seed: int) -> list[Bridges]:
    """The ways from each source. Raises `CbdError` at a scale that has none."""
    require(scale.bridge, f"scale {scale.name} has no source of another family: take the laptop scale")
    return [Bridges(scale, source, seed) for source in scale.bridge.sources]


def models(ways: Bridges, method: str) -> dict[str, Recipe]:
    """Stage -> model of one method: proxy, anchors, and the SLM interpolated between two of them."""
    chain = ways.chain(ways.proxies()[method])
    proxy, *anchors = chain.models
    named = {f"anchor {i}": anchor for i, anchor in enumerate(anchors, start=1)}
    slm = initialised(chain, ways.scale.bridge.target)
    return {"proxy": proxy, **named, "SLM": slm}


def design(scale: Scale, seed: int) -> Design:
    """Bits per byte of every source, and of proxy, anchors and SLM by every method, on every text.

    At a scale whose models are also judged on other texts than their own, the SLMs' tasks are scored, too.
    """
    found = []
    for ways in bridges(scale, seed):
        named = {method: models(ways, method) for method in ways.proxies()}
        for method, stages in {SOURCE: {SOURCE: ways.llm}, **named}.items():
            for stage, model in stages.items():
                labels = {"source": ways.source.name, "stage": stage}
                for metric, text in scale.texts.items():
                    measured = BitsPerByte(model, text, scale.bridge.bytes)
                    found.append(Measurement(measured, method, metric, labels))
                if scale.domains and stage == "SLM":
                    found += scored(scale, model, seed, method, **labels)
    costs = lambda frame, designs, items: _costs(scale, designs)  # noqa: E731
    return Design(tuple(found), costs, samples=lambda: samples(scale, seed), by_parts=False)


def samples(scale: Scale, seed: int) -> dict[str, Any]:
    """What sources, proxies and SLMs write after a prompt, and a sentence in the tokens of either side.

    written: source, model, text. aligned: source, the tokens that the sentence takes here and in the source,
    and the groups of tokens that cover the same bytes.
    """
    from transformers import AutoTokenizer  # torch: only when the models are there

    from cbd.data.alignment import Segmenter, align
    from cbd.models.generation import continued

    written, aligned = [], []
    for ways in bridges(scale, seed):
        name = ways.source.name
        shown = {SOURCE: ways.llm, **ways.proxies(), "SLM": models(ways, SEQUENCE)["SLM"]}
        for method, model in shown.items():
            written.append({"source": name, "model": method, "text": continued(realize(model), PROMPT)})
        tokenizers = [AutoTokenizer.from_pretrained(realize(r)) for r in (scale.corpus, ways.llm)]
        ours, theirs = (Segmenter(tokenizer)(SENTENCE) for tokenizer in tokenizers)
        groups = int(align(ours, theirs)[0].max()) + 1
        sizes = {"tokens": len(ours.ids), "tokens of the source": len(theirs.ids), "groups": groups}
        aligned.append({"source": name} | sizes)
    return {"prompt": PROMPT, "written": written, "sentence": SENTENCE, "aligned": aligned}


def _costs(scale: Scale, designs: dict[int, Design]) -> Iterable[dict]:
    """What each way to a proxy costs, and the tokens that the source wrote and read."""
    for seed in designs:
        for ways in bridges(scale, seed):
            place = {"source": ways.source.name}
            shared = {SEQUENCE: ways.text, ALM: ways.scored, ULD: ways.scored}
            for method, proxy in ways.proxies().items():
                if method == AS_IS:
                    continue  # it costs nothing
                labels = row_labels(Measurement(proxy, method, labels=place | {"stage": "proxy"}))
                source = shared[method].flops if method in shared else 0
                yield labels | {"seed": seed, "metric": "flops", "value": float(proxy.flops + source)}
            for metric, recipe in (("generated_tokens", ways.text), ("scored_tokens", ways.scored)):
                labels = row_labels(Measurement(recipe, SOURCE, labels=place | {"stage": SOURCE}))
                value = store.record(recipe)[metric]
                yield labels | {"seed": seed, "metric": metric, "value": float(value)}
