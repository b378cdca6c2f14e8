"""Guesses from the text itself and from earlier texts: what followed the longest end of the text that occurred before.

Of several continuations it proposes the most frequent one, as long as it is likely enough (G. Oliaro et al.,
"SuffixDecoding", 2024; Y. Hu et al., "SAM Decoding", 2024; both keep the texts in suffix structures).
"""

from collections.abc import Iterable, Sequence

from .suffix_automaton import EMPTY, SEPARATOR, Match, SuffixAutomaton

BORDERS = (1, 2, 3, 5, 8, 15, 31)
"""The longest contexts of the classes that ``Likelihood`` distinguishes."""

FIRST = {
    "once": (0.35, 0.55, 0.6, 0.75, 0.8, 0.85, 0.93, 0.99),
    "agreed": (0.7, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99),
    "divided": (0.15, 0.15, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
}
"""How likely a guess is right before any was made, by the class of its context: whether the context has occurred once
before, always with the same token after it, or with several. About what nine texts of a 0.5B showed (answers, an edited
file, code, tool calls)."""

WEIGHT = 4.0  # how many guesses ``FIRST`` counts as
MEMORY = 0.95  # how much of what is known of a class a further guess of it leaves

SEEN = 64  # tokens of the end of a text that are looked up in earlier texts when these have changed
CONTEXT = 4  # tokens of a prompt that are kept with the text after it, so that guesses begin with its first token


class Likelihood:
    """How likely a guess is right, learned from the tokens of one text."""

    def __init__(self) -> None:
        self._right = {(kind, index): WEIGHT * share for kind in FIRST for index, share in enumerate(FIRST[kind])}
        self._made = dict.fromkeys(self._right, WEIGHT)

    def of(self, kind: tuple[str, int]) -> float:
        """Return the probability for a class of contexts."""
        return self._right[kind] / self._made[kind]

    def learn(self, kind: tuple[str, int], right: bool) -> None:
        """Take note of whether the likeliest token of a context of this class was right."""
        self._right[kind] = MEMORY * self._right[kind] + right
        self._made[kind] = MEMORY * self._made[kind] + 1


class EarlierTexts:
    """The last texts of a scheduler, in two automata: when the newer is full, it becomes the older one.

    So a text that is generated again stays, and one that is not is forgotten, as the memory is bounded.

    Args:
        most: how many tokens are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most // 2
        self.automata = [SuffixAutomaton(), SuffixAutomaton()]
        self.turned = 0
        """How many times an automaton was dropped."""

    def add(self, prompt: Sequence[int], tokens: Sequence[int]) -> None:
        """Keep a text, with the last tokens of its prompt."""
        text = [*prompt[-CONTEXT:], *tokens][: self._most - 1]
        newer = self.automata[0]
        if len(newer) + len(text) >= self._most:
            newer = SuffixAutomaton()
            self.automata = [newer, self.automata[0]]
            self.turned += 1
        newer.extend(text)
        newer.add(SEPARATOR)


class SuffixLookup:
    """A ``Proposer`` that looks the end of the text up in the text before it, and in earlier texts.

    Args:
        earlier: None for none.
    """

    def __init__(self, earlier: EarlierTexts | None = None) -> None:
        self._own = SuffixAutomaton()
        self._likelihood = Likelihood()
        self._earlier = earlier
        self._turned = -1
        self._matches: list[Match] = []  # in the earlier texts

    def begin(self, history: list[int]) -> "SuffixProposal":
        """As ``Proposer.begin``."""
        read = len(self._own)
        if not read:
            self._own.extend(history)
            self._match_earlier(history)
            return self._proposal()
        if self._earlier is not None and self._turned != self._earlier.turned:
            self._match_earlier(history[:read])
        for token in history[read:]:
            self._learn(token)
            self._own.add(token)
        return self._proposal()

    def _proposal(self) -> "SuffixProposal":
        earlier = [] if self._earlier is None else self._earlier.automata
        return SuffixProposal([self._own, *earlier], [self._own.longest(), *self._matches], self._likelihood)

    def _learn(self, token: int) -> None:
        """Learn from a token that follows the text so far, before it is added."""
        proposal = self._proposal()
        if (found := proposal.best()) is not None:
            likeliest, kind = found
            self._likelihood.learn(kind, likeliest == token)
        self._matches = proposal.followed(token)[1:]

    def _match_earlier(self, history: list[int]) -> None:
        """Look the end of a text up in the earlier texts."""
        if self._earlier is not None:
            self._turned = self._earlier.turned
            self._matches = [_match(automaton, history[-SEEN:]) for automaton in self._earlier.automata]


class SuffixProposal:
    """Guesses after one text; a ``Proposal``.

    Args:
        matches: the longest end of the text in each automaton.
    """

    def __init__(self, automata: Sequence[SuffixAutomaton], matches: list[Match], likelihood: Likelihood) -> None:
        self._automata = automata
        self._matches = matches
        self._likelihood = likelihood
        self._taken = False

    def guess(self) -> tuple[int, float] | None:
        found = self.best()
        return None if found is None else (found[0], self._likelihood.of(found[1]))

    def take(self, token: int) -> None:
        self._matches = self.followed(token)
        self._taken = True

    def followed(self, token: int) -> list[Match]:
        """Return the matches with one more token."""
        pairs = zip(self._automata, self._matches, strict=True)
        return [automaton.continued(automaton.follow(match, token)) for automaton, match in pairs]

    def best(self) -> tuple[int, tuple[str, int]] | None:
        """Return the token that followed the longest context, and the context's class; None for none."""
        longest, found = 0, None
        for number, match in enumerate(self._matches):
            if match.length > longest and (known := self._automata[number].likely(match)) is not None:
                longest = match.length
                token, times, occurred = known
                if number == 0 and not self._taken:
                    occurred -= 1  # the end of the text itself, after which there is no token
                kind = "once" if occurred <= 1 else "agreed" if times >= occurred else "divided"
                found = token, (kind, _size_class(longest))
        return found


def _match(automaton: SuffixAutomaton, tokens: Iterable[int]) -> Match:
    """Return the longest end of a text that occurs in an automaton."""
    match = EMPTY
    for token in tokens:
        match = automaton.follow(match, token)
    return match


def _size_class(length: int) -> int:
    return next((index for index, border in enumerate(BORDERS) if length <= border), len(BORDERS))
