"""Quotations that a decoder may write: words of the transcript, whole and in their order.

tokenizer  ─► `QuoteVocabulary`, the bytes of each token ─┐
transcript ─► `Folded`, its words ────────────────────────┴─► `QuoteGrammar` ─► scores of tokens

A state machine over bytes keeps what is written valid UTF-8. Outside of quotations it forbids all quotation
marks but the plain one. A plain one opens a quotation, whose bytes must spell a stretch of the transcript
from the start of a word, and which closes behind a word; no word follows the closing mark without a space,
but in scripts that have none. So whatever a token holds, several marks, half a character or words in another
case, is followed byte by byte.

A transcript's own plain marks end a stretch. A quotation is opened only if it can be closed in time.

A row without words to quote may write plain marks, and `MmsrProcessor.decode_rationales` leaves what stands
between them out: a decoder that has learned to quote would otherwise lose its thread. So of audio alone
`reason: "words" in a weary voice` becomes `reason: in a weary voice`.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mmsr.quotations import MARK, OTHER_MARKS, UNSPACED_LETTER, fold_character, folded, is_word

Place = tuple[int, bytes]
"""A number of a character in `Folded.folded`, or `_OPEN` ..., and the bytes of a character begun there."""

State = bytes | frozenset[Place]
"""Outside of a quotation the bytes of a character begun, after a mark where one has just been closed; within,
the places reached in the transcript."""

_OPEN, _OPEN_SPACE, _CLOSE_SPACE, _CLOSED = -1, -2, -3, -4
_OPENED: State = frozenset({(_OPEN, b"")})
_MARK, _SPACE = MARK.encode(), b" "
_FORBIDDEN = frozenset(mark.encode() for mark in OTHER_MARKS | dict.fromkeys("".join(OTHER_MARKS.values())))
_BYTE = re.compile("<0x([0-9A-F]{2})>")
_NEVER = 10**6  # tokens
_SAMPLE = 256  # pairs of tokens by which a tokenizer is checked


class QuoteVocabulary:
    """The bytes that each token of a tokenizer adds to a text.

    Attributes:
        pieces: By token id; None of a token that may not be written, empty of special ones, which decoding
            leaves out.

    Raises:
        ValueError: A text of the tokenizer is more than the bytes of its tokens in their order.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.pieces = _pieces(tokenizer)
        plain = [(piece, token) for token, piece in enumerate(self.pieces) if piece and _MARK not in piece]
        self._sorted = sorted(plain)
        self._keys = [piece for piece, _ in self._sorted]
        self.quoting = [token for token, piece in enumerate(self.pieces) if piece and _MARK in piece]
        self.silent = [token for token, piece in enumerate(self.pieces) if piece == b""]
        self._single = {piece[0] for piece in self._keys if len(piece) == 1}
        self._completes = self._single >= set(range(0x80, 0xC0))
        self._closes = _MARK in self.pieces
        self._character_costs: dict[bytes, int] = {}
        self.characters: dict[str, list[tuple[bytes, str]]] = {}
        for character in {letter for piece in self._keys for letter in piece.decode(errors="ignore")}:
            add_character(self.characters, character)
        self._outside: dict[bytes, tuple[list[int], dict[int, bytes]]] = {}
        self._harmless: dict[bytes, Tensor] = {}

    def range_of(self, prefix: bytes, first: int = 0, last: int | None = None) -> tuple[int, int]:
        """The range of sorted tokens without plain marks whose bytes begin with `prefix`."""
        last = len(self._keys) if last is None else last
        first = bisect_left(self._keys, prefix, first, last)
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        return first, bisect_left(self._keys, end, first, last)

    def character_cost(self, character: bytes) -> int:
        """Tokens that certainly spell a character: one of its own, or one for each byte."""
        if character not in self._character_costs:
            first, last = self.range_of(character)
            spelled = len(character) if self._single.issuperset(character) else _NEVER
            own = first < last and self._keys[first] == character
            self._character_costs[character] = 1 if own else spelled
        return self._character_costs[character]

    @property
    def closing_cost(self) -> int:
        """Tokens that certainly close a quotation behind a word."""
        return 1 if self._closes else _NEVER

    def tokens_of(self, piece: bytes, first: int, last: int) -> Iterator[int]:
        """The tokens of a range whose bytes are `piece`, which stand at its start."""
        while first < last and self._keys[first] == piece:
            yield self._sorted[first][1]
            first += 1

    def outside(self, begun: bytes) -> tuple[list[int], dict[int, bytes]]:
        """Tokens without plain marks that may follow outside of quotations, after a character begun.

        Returns:
            Those after which no character is begun, and the others with what is begun then.
        """
        if begun not in self._outside:
            first, last = (0, len(self._keys))
            if _missing(begun):
                first, last = self.range_of(b"\x80")[0], self.range_of(b"\xbf")[1]
            whole: list[int] = []
            parts: dict[int, bytes] = {}
            for piece, token in self._sorted[first:last]:
                after = _outside(begun, piece)
                if after == b"":
                    whole.append(token)
                elif after is not None and self._completes and not _is_stuck(after):
                    parts[token] = after
            self._outside[begun] = whole, parts
        return self._outside[begun]

    def harmless(self, state: bytes) -> Tensor:
        """Which tokens `[v]` leave no character and no quotation open, after a state without either."""
        if state not in self._harmless:
            harmless = torch.zeros(len(self.pieces), dtype=torch.bool)
            harmless[self.silent + self.outside(state)[0]] = True
            self._harmless[state] = harmless
        return self._harmless[state]


class _Transcript:
    """The state machine of one transcript."""

    def __init__(self, vocabulary: QuoteVocabulary, text: str | None) -> None:
        self.vocabulary = vocabulary
        self.text = folded(text or "")
        self.own: dict[str, list[tuple[bytes, str]]] = {}
        for character in set(self.text.text) | set(self.text.folded):
            add_character(self.own, character)
        self._following: dict[Place, dict[int, list[Place]]] = {}
        self._moves: dict[State, dict[int, State]] = {}
        self._costs: dict[State, int] = {}
        self._tensors: dict[State, tuple[Tensor, Tensor]] = {}
        self._surely: dict[State, tuple[Tensor, int]] = {}
        self._letters: list[int] | None = None
        self._opened = _NEVER

    def after(self, state: State, piece: bytes) -> State | None:
        """The state after a token's bytes; None if they may not follow."""
        for byte in piece:
            found = self._step(state, byte)
            if found is None:
                return None
            state = found
        return state

    def moves(self, state: State) -> dict[int, State]:
        """Tokens that may follow, with the state after them.

        Outside of quotations those are left out that change nothing (`QuoteVocabulary.outside`).
        """
        if state not in self._moves:
            found: dict[int, State] = {}
            if isinstance(state, bytes):
                found |= self.vocabulary.outside(state)[1]
                if _missing(state):
                    found |= dict.fromkeys(self.vocabulary.outside(state)[0], b"")
            else:
                self._spell(state, b"", (0, None), found)
            for token in self.vocabulary.quoting:
                piece = self.vocabulary.pieces[token]
                assert piece is not None
                if (after := self.after(state, piece)) is not None and not _is_stuck(after):
                    found[token] = after
            self._moves[state] = found
        return self._moves[state]

    def following(self, state: State) -> tuple[Tensor, Tensor]:
        """The tokens of `moves` after which all can be closed `[k]`, and the `cost` after each `[k]`."""
        if state not in self._tensors:
            costs = {token: self.cost(after) for token, after in self.moves(state).items()}
            costs = {token: cost for token, cost in costs.items() if cost < _NEVER}
            self._tensors[state] = torch.tensor([*costs], dtype=torch.long), torch.tensor([*costs.values()])
        return self._tensors[state]

    def surely_closed(self, state: State) -> tuple[Tensor, int]:
        """The tokens of `moves` `[k]`, and a number of tokens in which all can be closed after any of them.

        That number is cheap: it spells the rest of a word letter by letter, where `cost` searches.
        """
        if state not in self._surely:
            moves = self.moves(state)
            most = max(map(self._most, moves.values()), default=0)
            self._surely[state] = torch.tensor([*moves], dtype=torch.long), most
        return self._surely[state]

    def _most(self, state: State) -> int:
        """A number that `cost` is not above; `_NEVER` where letter by letter does not tell."""
        if isinstance(state, bytes):
            return _missing(state)
        return min(self._to_close(number) if not begun else _NEVER for number, begun in state)

    def _to_close(self, number: int) -> int:
        """Tokens that close a quotation, letter by letter, from a place at which no character is begun."""
        if self._letters is None:
            self._letters = [_NEVER] * (len(self.text.folded) + 1)
            for place in range(len(self.text.folded), -1, -1):
                spelled = self._spelled(place)
                if place in self.text.starts:  # a word comes before the closing mark
                    self._opened = min(self._opened, spelled)
                closing = self.vocabulary.closing_cost if place in self.text.ends else _NEVER
                self._letters[place] = min(closing, spelled)
        if number in (_OPEN, _OPEN_SPACE):
            return self._opened
        return self.vocabulary.closing_cost if number == _CLOSE_SPACE else self._letters[number]

    def _spelled(self, place: int) -> int:
        """As `_to_close`, with one character at least."""
        assert self._letters is not None
        costs = (
            self.vocabulary.character_cost(option) + self._letters[target]
            for option, target in self._characters(place)
        )
        return min(costs, default=_NEVER)

    def cost(self, state: State) -> int:
        """Fewest tokens until no quotation and no character is open."""
        if isinstance(state, bytes):
            return _missing(state)
        if state not in self._costs:
            self._costs[state] = self._search(state)
        return self._costs[state]

    def _search(self, state: State) -> int:
        seen, reached, steps = {state}, [state], 0
        while reached:
            steps += 1
            following: dict[State, None] = {}
            for there in reached:
                for after in self.moves(there).values():
                    if isinstance(after, bytes):
                        if not _missing(after):
                            return steps
                    elif after not in seen:
                        known = self._costs.get(after)
                        if known == _NEVER:
                            continue
                        seen.add(after)
                        following[after] = None
            reached = list(following)
        self._costs |= dict.fromkeys(seen, _NEVER)
        return _NEVER

    def _spell(
        self, state: State, spelled: bytes, span: tuple[int, int | None], found: dict[int, State]
    ) -> None:
        """Add the tokens without plain marks that continue `spelled`, which led to `state`."""
        assert not isinstance(state, bytes)
        following: dict[int, set[Place]] = {}
        for place in state:
            for byte, places in self._edges(place).items():
                following.setdefault(byte, set()).update(places)
        for byte, reached in following.items():
            piece = spelled + bytes([byte])
            first, last = self.vocabulary.range_of(piece, *span)
            if byte != _MARK[0] and first < last:
                after = frozenset(reached)
                found |= dict.fromkeys(self.vocabulary.tokens_of(piece, first, last), after)
                self._spell(after, piece, (first, last), found)

    def _step(self, state: State, byte: int) -> State | None:
        if isinstance(state, bytes):
            if byte != _MARK[0]:
                return _outside(state, bytes([byte]))
            if state:
                return None
            return _OPENED if self.text.starts else b""
        reached: set[Place] = set()
        for place in state:
            reached.update(self._edges(place).get(byte, ()))
        return _MARK if (_CLOSED, b"") in reached else frozenset(reached) or None

    def _edges(self, place: Place) -> dict[int, list[Place]]:
        """The places after each byte that may follow a place."""
        if place not in self._following:
            edges = self._following[place] = {}
            number, begun = place
            for start in self.text.starts if number in (_OPEN, _OPEN_SPACE) else (number,):
                for option, target in self._characters(start):
                    if option.startswith(begun):
                        longer = option[: len(begun) + 1]
                        reached = (target, b"") if longer == option else (start, longer)
                        edges.setdefault(longer[-1], []).append(reached)
            if number == _OPEN:
                edges.setdefault(_SPACE[0], []).append((_OPEN_SPACE, b""))
            if not begun and (number == _CLOSE_SPACE or number in self.text.ends):
                edges[_MARK[0]] = [(_CLOSED, b"")]
                if number != _CLOSE_SPACE:
                    edges.setdefault(_SPACE[0], []).append((_CLOSE_SPACE, b""))
        return self._following[place]

    def _characters(self, number: int) -> Iterator[tuple[bytes, int]]:
        """The characters that go on with the transcript, in UTF-8, each with the number after it."""
        text = self.text.folded
        if 0 <= number < len(text) and text[number] != MARK:
            known = self.vocabulary.characters.get(text[number], [])
            for option, form in dict.fromkeys([*known, *self.own.get(text[number], [])]):
                if text.startswith(form, number):
                    yield option, number + len(form)


class QuoteGrammar(LogitsProcessor):
    """Lets a decoder quote nothing but whole words of the transcript of each row.

    Made by `MmsrProcessor.quote_grammar`, and given to `generate` as `logits_processor=[grammar]`.

    Args:
        vocabulary: Of the decoder's tokenizer.
        transcripts: Of the rows `[b]`; None where a row has none, whose quotations `decode_rationales` leaves
            out. Beams of a row are adjacent.

    Attributes:
        max_length: Longest text in tokens with which a quotation must be closed; set by `generate`.
    """

    def __init__(self, vocabulary: QuoteVocabulary, transcripts: Sequence[str | None]) -> None:
        self.vocabulary = vocabulary
        self.transcripts = list(transcripts)
        self.max_length = _NEVER
        self._rows = [_Transcript(vocabulary, text) for text in self.transcripts]
        self._states: dict[tuple[int, tuple[int, ...]], State] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores `[n, v]` of tokens that may not follow `input_ids [n, r]` to minus infinity.

        Raises:
            ValueError: `n` is no multiple of the number of transcripts, or a given beginning of a text
                quotes what its transcript has not.
        """
        texts = [tuple(row) for row in input_ids.tolist()]
        if not self._rows or len(texts) % len(self._rows):
            raise ValueError(
                f"{len(self._rows)} transcripts for {len(texts)} rows; accepted: one for each, None without"
            )
        beams = len(texts) // len(self._rows)
        states = {(row // beams, text): self._state(row // beams, text) for row, text in enumerate(texts)}
        self._states = states
        left = self.max_length - input_ids.shape[1] - 1
        allowed = torch.stack(
            [
                self._allowed(self._rows[row // beams], states[row // beams, text], left, scores.shape[1])
                for row, text in enumerate(texts)
            ]
        )
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def _state(self, row: int, text: tuple[int, ...]) -> State:
        """The state after a text, from that of the step before where it is known."""
        known = self._states.get((row, text[:-1]))
        state, tokens = (b"", text) if known is None else (known, text[-1:])
        for token in tokens:
            piece = self.vocabulary.pieces[token] if token < len(self.vocabulary.pieces) else b""
            after = None if piece is None else self._rows[row].after(state, piece)
            if after is None:
                raise ValueError(
                    f"decoder_input_ids of row {row} quote what its transcript has not; accepted: a text "
                    'that quotes (in ") whole words of the transcript'
                )
            state = after
        return state

    def _allowed(self, transcript: _Transcript, state: State, left: int, size: int) -> Tensor:
        """Which tokens may follow `[v]`, with room for `left` more after them."""
        between = isinstance(state, bytes) and not _missing(state)
        allowed = torch.full((size,), between)
        if isinstance(state, bytes) and between:
            allowed[: len(self.vocabulary.pieces)] = self.vocabulary.harmless(state)
        tokens, most = transcript.surely_closed(state)
        if most <= left:
            allowed[tokens] = True
            return allowed
        tokens, costs = transcript.following(state)
        if len(tokens):
            most = left if between else max(left, int(costs.min()))
            allowed[tokens[costs <= most]] = True
        return allowed


class UncheckedQuotes(LogitsProcessor):
    """Stands in for a `QuoteGrammar` where only the label of a text is read."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores."""
        return scores


def add_character(characters: dict[str, list[tuple[bytes, str]]], character: str) -> None:
    """Add a character in UTF-8 and folded to those whose folded forms begin alike."""
    folded, written = fold_character(character), character.encode(errors="ignore")
    if folded and written:  # a lone surrogate has no UTF-8
        characters.setdefault(folded[0], []).append((written, folded))


def _outside(begun: bytes, piece: bytes) -> bytes | None:
    """The state after more text outside of quotations; None if it may not follow."""
    text = begun + piece
    try:
        written, rest = text.decode(), b""
    except UnicodeDecodeError as error:
        if error.end < len(text) or error.reason != "unexpected end of data":
            return None
        written, rest = text[: error.start].decode(), text[error.start :]
    if written.startswith(MARK):  # a quotation has just been closed
        follows = written[1:2]
        if not follows:
            return _MARK + rest
        if is_word(follows) and not UNSPACED_LETTER.match(follows):
            return None
    return None if any(character.encode() in _FORBIDDEN for character in written) else rest


def _is_stuck(state: State) -> bool:
    """Whether a character is begun behind a closing mark: it may be a letter, which may not stand there."""
    return isinstance(state, bytes) and state.startswith(_MARK) and state != _MARK


def _missing(state: bytes) -> int:
    """The number of bytes that a character begun lacks."""
    begun = state.removeprefix(_MARK)
    if not begun:
        return 0
    return (2 if begun[0] < 0xE0 else 3 if begun[0] < 0xF0 else 4) - len(begun)


def _pieces(tokenizer: PreTrainedTokenizerBase) -> list[bytes | None]:
    """The bytes of each token, read off texts in which it stands between two others."""
    size = len(tokenizer)
    special = set(tokenizer.all_special_ids)
    special |= {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    ids = tokenizer("a", add_special_tokens=False)["input_ids"]
    if not ids or special & set(ids):
        raise _unreadable(tokenizer, "it has no token for the letter a")
    side = ids[-1:]
    before, both = _decoded(tokenizer, [side, side * 2])
    behind = both[len(before) :]

    def between(rows: Iterable[list[int]]) -> list[str | None]:
        texts = _decoded(tokenizer, [[*side, *row, *side] for row in rows])
        least = len(before) + len(behind)
        return [
            text[len(before) : len(text) - len(behind)]
            if len(text) >= least and text.startswith(before) and text.endswith(behind)
            else None
            for text in texts
        ]

    byte_level = _byte_level(tokenizer)
    pieces: list[bytes | None] = []
    names = tokenizer.convert_ids_to_tokens(list(range(size)))
    for token, (name, text) in enumerate(zip(names, between([token] for token in range(size)), strict=True)):
        piece = None if text is None else text.encode(errors="replace")
        if token in special or name is None:
            piece = b""
        elif text is not None and "\ufffd" in text:
            byte = _BYTE.fullmatch(name)
            if byte is not None:
                piece = bytes([int(byte[1], 16)])
            elif byte_level and all(letter in byte_level for letter in name):
                piece = bytes(byte_level[letter] for letter in name)
        pieces.append(piece)
    readable = [token for token, piece in enumerate(pieces) if piece and token not in special]
    if len(readable) < 0.9 * (size - len(special)):
        raise _unreadable(tokenizer, "its tokens have other texts beside others")
    draw = random.Random(0)
    rows = [draw.choices(readable, k=2) for _ in range(_SAMPLE)]
    for row, text in zip(rows, between(rows), strict=True):
        joined = b"".join(pieces[token] or b"" for token in row).decode(errors="replace")
        if text != joined and "\ufffd" not in joined:
            raise _unreadable(tokenizer, f"its tokens {row} are {joined!r} one by one and {text!r} together")
    return pieces


def _unreadable(tokenizer: PreTrainedTokenizerBase, why: str) -> ValueError:
    return ValueError(
        f"quotes='transcript' with {type(tokenizer).__name__}: {why}; accepted: a tokenizer whose texts are "
        "its tokens' in their order (SentencePiece, byte-level BPE, WordPiece), or quotes='free'"
    )


def _decoded(tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> list[str]:
    """The texts of rows of tokens, as they are."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return backend.decode_batch(rows, skip_special_tokens=False)
    return tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _byte_level(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The byte of each letter of a byte-level tokenizer's tokens (GPT-2, Llama 3, Qwen); {} of others."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if "ByteLevel" not in repr(decoder):
        return {}
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    return letters | {chr(256 + place): byte for place, byte in enumerate(hidden)}
