"""Any media in, any media out: the shipped model, or one of your own, asked and answered.

    model = pg.load()
    (picture,) = model.generate([pg.open("bark.ogg"), "draw it"], want="image")

The request is packed into one stream, `<ask>` inputs `<give>`, and goes on token by token. The grammar says at each
position which ids are legal; the scores of those alone are computed, and one is drawn. So every answer is a valid
medium, and a budget of tokens is never exceeded. Rows of a batch are at different places of the grammar, and each has a
random generator of its own: an answer does not depend on how many are drawn beside it.

Where a picture, sound or video is asked for and others are given, the model first says in words what they are, which
becomes part of the stream: `<ask>` photo "say it" `<give>` "dog" and then the sound (cf. arXiv 2201.11903). Of each
picture, sound or video a few are drawn, and the one is kept in which the model reads best what it was to show; of words
for what is given, those from which the model would draw it.

Not here: the network (`panglot.model`), the grammar (`panglot.grammar`), how answers are read (`panglot.rereading`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from panglot import checkpoint
from panglot.fitting import Fit
from panglot.grammar import Ask, Bounds, Cursor, Grammar
from panglot.layout import BUDGETS, MARKS, Layout
from panglot.media import Media, Text
from panglot.model import Transformer
from panglot.rereading import CHANNEL, likelihoods
from panglot.stream import Part, mark, pack_segment
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Codes

MEDIA = ("text", "image", "audio", "video")
ASSETS = Path(__file__).parent / "assets" / "mini"
"""The model that panglot ships."""


class GenerateError(ValueError):
    """A request that cannot be answered. One line: what was asked, what is possible."""


@dataclass(frozen=True)
class Settings:
    """How answers are drawn.

    tokens: of each wanted medium at most, and the budget that is stated to the model; None: the largest it finds usual.
    temperature: None: 0 for text (the likeliest), 0.5 for media. top_p: draw from the likeliest that make up so much.
    guidance: of media, how much further than without the request (classifier-free, arXiv 2207.12598); 1: no further.
    longest: characters of text, roughly, and media without a budget: tokens at most.
    words: say first in words what is given in other media; they are not part of the answer.
    tries: of wanted media, how many are drawn for each answer, and of words for media twice as many; 1: no choice, and
        the least time.
    """

    tokens: int | None = None
    seed: int = 0
    temperature: float | None = None
    top_p: float = 0.95
    guidance: float = 2.0
    longest: int = 512
    words: bool = True
    tries: int = 4

    def __post_init__(self):
        if self.tokens is not None and not 1 <= self.tokens <= BUDGETS[-1]:
            raise GenerateError(f"--tokens {self.tokens}: give at least 1, at most {BUDGETS[-1]}")
        if self.seed < 0:
            raise GenerateError(f"--seed {self.seed}: give 0 or more")
        if self.temperature is not None and not 0 <= self.temperature <= 10:
            raise GenerateError(f"--temperature {self.temperature:g}: choose a number from 0 to 10")
        if not 0 < self.top_p <= 1:
            raise GenerateError(f"--top-p {self.top_p:g}: choose a number above 0, at most 1")
        if not 0 < self.guidance <= 20:
            raise GenerateError(f"--guidance {self.guidance:g}: choose a number above 0, at most 20")
        if self.longest < 1:
            raise GenerateError(f"longest {self.longest}: give at least 1")
        if not 1 <= self.tries <= 64:
            raise GenerateError(f"--tries {self.tries}: choose from 1 to 64")


ROOM = 512
"""Tokens of an answer for which there is memory at first; it grows."""

USUAL = 0.03
"""Share of its choices from which on a budget is usual to the model. Drawn by its shares it would be a small one more
often than not, as those were in training: spoken words of 19 tokens instead of 30, and fewer of them understood."""

WORDS = 64
"""Characters, roughly, in which is said what is given."""

OTHER_WORDS = 2
"""For each try, so many words for what is given, beside the likeliest: they take less time than media."""

GIVEN = 0.25
"""Weight of what is given in other media, against what it was said to be; both are what is answered to."""

Told = Callable[[int, str, int], None]
"""Called with the row (all tries of the first answer, then of the next), the alphabet and the symbol of every token; of
words that are chosen among several with those of the likeliest alone, which need not be the ones that are kept."""


class Panglot:
    """A model with its layout and the sizes of media that it knows."""

    def __init__(
        self,
        model: Transformer,
        layout: Layout,
        fit: Fit = Fit(),  # noqa: B008 - frozen
        learned: Collection[str] = MEDIA,
        kinds: Collection[str] = (),
    ):
        """learned: the modalities that the model has learned. kinds: words that say how a thing is shown ("photo"),
        and not what it is; answers are not searched for them."""
        self.model = model.eval().requires_grad_(False)
        self.layout, self.fit, self.learned, self.kinds = layout, fit, learned, kinds

    @classmethod
    def load(cls, path: str | Path | None = None) -> Panglot:
        """From a checkpoint's folder, by default the model that panglot ships. Raises CheckpointError."""
        folder = Path(path) if path is not None else ASSETS
        model, layout, extra = checkpoint.load(folder)
        try:
            data = extra.get("data", {})
            fit = Fit.from_json(data.get("options", {}).get("fit") or {})
            learned = [name for name in MEDIA if name in data.get("tokens", MEDIA)]
            kinds = [str(words) for words in data.get("kinds", ())]
        except (ValueError, TypeError, AttributeError) as fault:
            wrong = f"{folder}: the sizes of its media are damaged ({fault})"
            raise checkpoint.CheckpointError(f"{wrong}; copy or train the checkpoint again") from None
        return cls(model, Layout.from_json(layout), fit, learned, kinds)

    def generate(
        self,
        inputs: Sequence[Media | str],
        want: str | Sequence[str] | None = None,
        n: int = 1,
        told: Told | None = None,
        **settings: Any,
    ) -> list[Media]:
        """Media that answer the inputs.

        inputs: any number, any mix; a str is a text. want: "text", "image", "audio", "video", or several in order;
        None: the model chooses what and how many. n: answers to draw. settings: those of `Settings`. Returns the media
        of the first answer, then of the second, and so on. Raises GenerateError.
        """
        answers = self.answers(inputs, want, n, told, Settings(**settings))
        return [tokenizer(codes.modality).decode(codes) for answer in answers for codes in answer]

    def answers(
        self,
        inputs: Sequence[Media | str],
        want: str | Sequence[str] | None = None,
        n: int = 1,
        told: Told | None = None,
        settings: Settings = Settings(),
    ) -> list[list[Codes]]:
        """As `generate`, in tokens: the codes of each answer's segments."""
        return self._run([self._prompt(inputs)], n, want, told, settings)

    def answer_all(
        self,
        requests: Sequence[Sequence[Media | str]],
        want: str | Sequence[str] | None,
        told: Told | None = None,
        settings: Settings = Settings(),
    ) -> list[list[Codes]]:
        """Answers to several requests at once, one each."""
        return self._run([self._prompt(inputs) for inputs in requests], 1, want, told, settings)

    def _run(
        self, prompts: list[list[Part]], n: int, want: str | Sequence[str] | None, told: Told | None, settings: Settings
    ) -> list[list[Codes]]:
        """n answers to each prompt, those of one side by side."""
        wanted = [want] if isinstance(want, str) else list(want or ())
        if unknown := [w for w in wanted if w not in MEDIA]:
            raise GenerateError(f"--want {unknown[0]}: choose among {', '.join(MEDIA)}")
        if unknown := [w for w in wanted if w not in self.learned]:
            raise GenerateError(f"--want {unknown[0]}: this model has learned only {', '.join(self.learned)}")
        if not prompts or n < 1:
            return []
        with torch.inference_mode():
            briefs: list[list[Part]] = []
            if settings.words and "text" in self.learned and wanted and wanted[0] != "text":
                briefs = self._say(prompts, settings)
            tries = settings.tries if set(wanted) - {"text"} and settings.temperature != 0 else 1
            each, brief = ([p for p in view for _ in range(n * tries)] for view in (prompts, briefs))
            drawn = _Run(self, each, wanted, settings, told, brief).finish()
            if wanted == ["text"] and settings.temperature is None:
                return self._best_words(drawn, each, settings)
            return drawn if tries == 1 else self._best(drawn, brief or each, tries)

    def _best(self, drawn: list[list[Codes]], prompts: list[list[Part]], tries: int) -> list[list[Codes]]:
        """Of every `tries` answers the one in which the words of its request are read best; the first without words."""
        kinds = {tokenizer("text").encode(Text(words)).arrays["text"].tobytes() for words in self.kinds}
        pairs = [
            (row, part)
            for row, prompt in enumerate(prompts)
            for part in prompt
            if isinstance(part, Codes) and part.modality == "text" and part.arrays["text"].tobytes() not in kinds
        ]
        shown = [[codes for codes in drawn[row] if codes.modality != "text"] for row, _ in pairs]
        score = np.zeros(len(drawn))
        np.add.at(
            score, [row for row, _ in pairs], likelihoods(self.model, self.layout, shown, [[text] for _, text in pairs])
        )
        return [drawn[i + int(score[i : i + tries].argmax())] for i in range(0, len(drawn), tries)]

    def _best_words(self, said: list[list[Codes]], prompts: list[list[Part]], settings: Settings) -> list[list[Codes]]:
        """For each text on given media that one, of it and others, that is likely behind them and they behind it."""
        rows = [i for i, prompt in enumerate(prompts) if said[i] and any(map(_is_medium, prompt))]
        if settings.tries == 1 or not rows:
            return said
        others = OTHER_WORDS * settings.tries
        free = replace(settings, temperature=1.0, longest=min(settings.longest, WORDS))
        drawn = _Run(self, [prompts[i] for i in rows for _ in range(others)], ["text"], free, None).finish()
        out = list(said)
        pairs: list[tuple[int, list[Codes]]] = []
        for place, i in enumerate(rows):
            different: dict[bytes, list[Codes]] = {}
            for answer in [said[i], *drawn[place * others : (place + 1) * others]]:
                if answer:
                    different.setdefault(answer[0].arrays["text"].tobytes(), answer)
            if len(different) > 1:
                pairs += [(i, answer) for answer in different.values()]
        given = [[part for part in prompts[i] if isinstance(part, Codes)] for i, _ in pairs]
        media = [[part for part in parts if part.modality != "text"] for parts in given]
        texts = [answer for _, answer in pairs]
        score = likelihoods(self.model, self.layout, given, texts)
        score += CHANNEL * likelihoods(self.model, self.layout, texts, media)
        best: dict[int, float] = {}
        for (i, answer), value in zip(pairs, score, strict=True):
            if value > best.get(i, -np.inf):
                best[i], out[i] = float(value), answer
        return out

    def _say(self, prompts: list[list[Part]], settings: Settings) -> list[list[Part]]:
        """Put words for what is given in other media behind the requests; returns the requests in words alone."""
        media = [p for p in prompts if any(map(_is_medium, p))]
        if not media:
            return []
        tries = 1 if settings.temperature == 0 else settings.tries
        brief = replace(settings, tokens=None, temperature=0.0, longest=WORDS, tries=tries)
        said = iter(self._best_words(_Run(self, media, ["text"], brief, None).finish(), media, brief))
        briefs = []
        for prompt in prompts:
            words = next(said) if any(map(_is_medium, prompt)) else []
            briefs.append([*prompt[:1], *words, *(part for part in prompt[1:] if not _is_medium(part))])
            prompt += words
        return briefs

    def encoded(self, medium: Media | str) -> Codes:
        """The codes of an input, at the sizes that the model knows."""
        fitted = self.fit(Text(medium) if isinstance(medium, str) else medium)
        options: dict[str, Any] = {}
        if fitted.modality in ("image", "video"):
            options["stride"] = finest = self.layout.strides("image")[-1]
            if fitted.modality == "video":
                options["stride"] = max(finest, self.layout.strides("change")[-1])
                options["keyframe"] = finest
        if fitted.modality in ("audio", "video"):
            options["depth"] = max(1, self.layout.depth - (fitted.modality == "video"))  # as in training
        return tokenizer(fitted.modality).encode(fitted, **options)

    def _prompt(self, inputs: Sequence[Media | str]) -> list[Part]:
        return ["ask", *(self.encoded(medium) for medium in inputs), "give"] if inputs else []

    def bounds(self, settings: Settings) -> Bounds:
        """What may be drawn: nothing larger than the model has learned."""
        side = self.fit.side or 256
        seconds = self.fit.seconds or 5.0
        return Bounds(
            tokens=settings.tokens or settings.longest,
            text=min(settings.tokens or settings.longest, settings.longest),
            pixels=side * side,
            frames=self.fit.frames or 100,
            samples=round(seconds * (16000 if self.fit.seconds else 48000)),
            usual=True,
        )


def load(path: str | Path | None = None) -> Panglot:
    """The model that panglot ships, or the one in a folder that `panglot train` made. Raises CheckpointError."""
    return Panglot.load(path)


def _is_medium(part: Part) -> bool:
    return isinstance(part, Codes) and part.modality != "text"


class _Run:
    """Rows that are drawn side by side, and beside each, with guidance, the same without its request.

    briefs: the requests in words alone, where some give other media. Then there is a third row of each: answers follow
    a mean of both (GIVEN), and guidance moves them as the words do (two conditions, as in arXiv 2211.09800). After a
    long medium the word that was just said counted for too little.
    """

    def __init__(
        self,
        owner: Panglot,
        prompts: list[list[Part]],
        wanted: list[str],
        settings: Settings,
        told: Told | None,
        briefs: Sequence[list[Part]] = (),
    ):
        self.owner, self.settings, self.wanted, self.told = owner, settings, wanted, told
        layout = owner.layout
        self.grammar = Grammar(layout, owner.bounds(settings))
        self.guided = settings.guidance != 1 and wanted != ["text"]
        self.random = [np.random.default_rng([settings.seed, i]) for i in range(len(prompts))]
        bos = mark(layout, "bos")
        views = [prompts, *([briefs] if briefs else []), [[]] * len(prompts)] if self.guided else [prompts]
        self.views = len(views)
        rows = [np.concatenate([bos, *(self._ids(part) for part in prompt)]) for view in views for prompt in view]
        first = {row.tobytes(): row for row in rows}  # each prompt is read once, however many answers it gets
        places = {key: place for place, key in enumerate(first)}
        longest, positions = max(map(len, rows)), owner.model.config.positions
        if longest + 16 > positions:
            raise GenerateError(f"the inputs are {longest} tokens, the model reads {positions}: give fewer or smaller")
        model = owner.model
        self.cache = model.cache(len(first), min(longest + ROOM, positions))
        hidden = model.prefill([torch.from_numpy(row.astype(np.int64)) for row in first.values()], self.cache)
        again = torch.tensor([places[row.tobytes()] for row in rows])
        if len(first) < len(rows):
            self.cache.keep(again)
        self.hidden = hidden[again]
        self.live = list(range(len(prompts)))
        self.segments: list[list[Codes]] = [[] for _ in prompts]
        self.cursors = [self._cursor(i) for i in self.live]

    def _ids(self, part: Part) -> np.ndarray:
        return mark(self.owner.layout, part) if isinstance(part, str) else pack_segment(part, self.owner.layout)

    def _cursor(self, row: int) -> Cursor | None:
        """The grammar of the next segment of a row, or None where the answer is complete."""
        done = len(self.segments[row])
        if done >= (len(self.wanted) or 4):
            return None
        return Cursor(self.owner.layout, _next(self.grammar, self.wanted[done] if self.wanted else None))

    def finish(self) -> list[list[Codes]]:
        """Draw until every answer is complete."""
        while self.live:
            tokens = self._draw()
            kept = []
            for place, row in enumerate(self.live):
                cursor = self.cursors[row]
                assert cursor is not None
                cursor.push(tokens[place])
                if cursor.done and cursor.result is not None:
                    self.segments[row].append(cursor.result)
                    self.cursors[row] = self._cursor(row)
                elif cursor.done:
                    self.cursors[row] = None
                if self.cursors[row] is not None:
                    kept.append(place)
            if not kept:
                break
            self._advance(tokens, kept)
        return self.segments

    def _advance(self, tokens: list[int], kept: list[int]) -> None:
        """Feed the drawn tokens; rows that are complete leave the batch."""
        if len(kept) < len(self.live):
            count = len(self.live)
            self.cache.keep(torch.tensor([view * count + place for view in range(self.views) for place in kept]))
            self.live = [self.live[place] for place in kept]
            tokens = [tokens[place] for place in kept]
        if self.cache.used == self.cache.slots:
            positions = self.owner.model.config.positions
            if self.cache.used == positions:
                raise GenerateError("the model's context is full before the answer is complete: ask for fewer tokens")
            self.cache.grow(min(2 * self.cache.slots, positions))
        ids = torch.tensor(tokens * self.views)[:, None]
        self.hidden = self.owner.model.step(ids, self.cache)[:, 0]

    def _draw(self) -> list[int]:
        """One token for every live row, among those that are legal there."""
        tokens = [0] * len(self.live)
        alike: dict[tuple[int, int], list[int]] = {}
        for place, row in enumerate(self.live):
            start, stop, allowed = self.cursors[row].legal()  # type: ignore[union-attr]
            symbol = self._decided(self.cursors[row].ask, allowed)  # type: ignore[union-attr]
            if symbol is not None:
                tokens[place] = start + symbol
            else:
                alike.setdefault((start, stop), []).append(place)
        for (start, stop), places in alike.items():
            scores = self._scores(places, start, stop)
            for place, line in zip(places, scores, strict=True):
                tokens[place] = start + self._choose(self.live[place], line)
        if self.told:
            for place, row in enumerate(self.live):
                self.told(row, *self.owner.layout.symbol(tokens[place]))
        return tokens

    def _decided(self, ask: Ask, allowed: tuple[int, ...] | None) -> int | None:
        """The symbol, where it is not the model's to choose: only one is legal, or the user has said."""
        if allowed is not None and len(allowed) == 1:
            return allowed[0]
        if ask.what == "budget" and self.settings.tokens:
            return min(i for i, n in enumerate(BUDGETS) if n >= self.settings.tokens)
        return None

    def _scores(self, places: list[int], start: int, stop: int) -> np.ndarray:
        """Logits [len(places), stop - start], those of media guided."""
        starts, count = self.owner.layout.starts, len(self.live)

        def seen(view: int) -> Tensor:
            return self.owner.model.logits(self.hidden[[view * count + place for place in places]], start, stop)

        logits = seen(0)
        if self.guided and start > starts["mark"] and start != starts["budget"]:
            brief = seen(1) if self.views == 3 else logits
            logits = brief + GIVEN * (logits - brief)  # in this order, so that equal ones stay what they are
            logits += (self.settings.guidance - 1) * (brief - seen(self.views - 1))
        return logits.numpy()

    def _choose(self, row: int, scores: np.ndarray) -> int:
        cursor = self.cursors[row]
        assert cursor is not None
        allowed = cursor.ask.allowed
        symbols = np.arange(len(scores)) if allowed is None else np.array(allowed)
        if cursor.ask.what == "budget":
            return int(symbols[largest(scores[symbols])])
        return int(symbols[pick(scores[symbols], self._temperature(cursor), self.settings.top_p, self.random[row])])

    def _temperature(self, cursor: Cursor) -> float:
        if self.settings.temperature is not None:
            return self.settings.temperature
        return 0.0 if cursor.ask.alphabet in ("text", "mark") else 0.5


def largest(scores: np.ndarray) -> int:
    """The last index whose share, by softmax(scores), is at least USUAL, or else the likeliest."""
    share = np.exp(scores - scores.max())
    share /= share.sum()
    return int(np.flatnonzero(share >= min(USUAL, share.max()))[-1])


def pick(scores: np.ndarray, temperature: float, top_p: float, random: np.random.Generator) -> int:
    """An index drawn by softmax(scores / temperature) among the likeliest that make up top_p (arXiv 1904.09751)."""
    if temperature == 0:
        return int(scores.argmax())
    scaled = (scores - scores.max()).astype(np.float64) / temperature
    share = np.exp(scaled)
    share /= share.sum()
    if top_p < 1:
        order = np.argsort(-share, kind="stable")
        last = int(np.searchsorted(np.cumsum(share[order]), top_p)) + 1
        order = order[:last]
        return int(order[_drawn(share[order], random)])
    return _drawn(share, random)


def _drawn(share: np.ndarray, random: np.random.Generator) -> int:
    edges = np.cumsum(share)
    return min(int(np.searchsorted(edges, random.random() * edges[-1], side="right")), len(share) - 1)


def _next(grammar: Grammar, wanted: str | None):
    """A coroutine of the next segment, the mark that opens it included. Returns its Codes, or None after eos."""
    names = (wanted,) if wanted else (*MEDIA, "eos")
    name = MARKS[(yield Ask("mark", tuple(MARKS.index(n) for n in names), "mark"))]
    if name == "eos":
        return None
    return (yield from grammar.segment(name))
