"""How sequences are laid out for one forward pass, and where their answers' tokens are scored.

A pair's two sides begin with the same prompt. In a shared row it stands once:

    prompt without its last token | last token, chosen | last token, rejected

Each side sees the prompt and itself, at the positions that it has when it stands alone, so its
hidden states are the same. The prompt's last token stands twice, since it predicts the first
token of each side. The last token of a sequence predicts nothing and is left out.

Shapes: S sequences (of pairs: the chosen ones, then the rejected ones), B rows, T tokens,
N tokens of answers. Knows neither models nor losses.
"""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

PROMPT, CHOSEN, REJECTED, PADDING = range(4)


@dataclass(frozen=True, slots=True)
class Layout:
    ids_BT: torch.Tensor
    positions_BT: torch.Tensor
    mask_B1TT: torch.Tensor | None
    """True where a token sees another; None where each sees all that stand before it."""
    places_N: torch.Tensor
    """In the flattened rows: the tokens that predict those of answers, sequence by sequence."""
    targets_N: torch.Tensor

    @property
    def labels_BT(self) -> torch.Tensor:
        """What each place of the rows predicts; -100 where it is not scored."""
        labels = torch.full_like(self.ids_BT, -100).flatten()
        labels[self.places_N] = self.targets_N
        return labels.view_as(self.ids_BT)


def alone(ids_ST: torch.Tensor, attended_ST: torch.Tensor, labels_ST: torch.Tensor) -> Layout:
    """Each sequence in a row of its own. Padding stands behind, so that nothing sees it."""
    num_rows, num_tokens = ids_ST.shape[0], int(attended_ST.sum(1).max()) - 1
    labels_BT = labels_ST[:, 1 : num_tokens + 1]
    return Layout(
        ids_BT=ids_ST[:, :num_tokens],
        positions_BT=torch.arange(num_tokens, device=ids_ST.device).expand(num_rows, -1),
        mask_B1TT=None,
        places_N=(labels_BT != -100).flatten().nonzero()[:, 0],
        targets_N=labels_BT[labels_BT != -100],
    )


def shared(ids_ST: torch.Tensor, attended_ST: torch.Tensor, labels_ST: torch.Tensor) -> Layout:
    """Each pair in one row, its prompt once."""
    lengths_S = attended_ST.sum(1)
    prompts_B = (labels_ST != -100).int().argmax(1).chunk(2)[0]
    whole = [row[:length] for row, length in zip(ids_ST, lengths_S, strict=True)]
    half = len(whole) // 2
    rows = [
        _row(*pair) for pair in zip(whole[:half], whole[half:], prompts_B.tolist(), strict=True)
    ]
    ids_BT, positions_BT, segments_BT = (
        pad_sequence(list(parts), batch_first=True, padding_value=value)
        for parts, value in zip(zip(*rows, strict=True), (0, 0, PADDING), strict=True)
    )
    sides = [(segments_BT == side).flatten().nonzero()[:, 0] for side in (CHOSEN, REJECTED)]
    return Layout(
        ids_BT=ids_BT,
        positions_BT=positions_BT,
        mask_B1TT=_sees(segments_BT),
        places_N=torch.cat(sides),
        targets_N=labels_ST[:, 1:][labels_ST[:, 1:] != -100],
    )


def shared_costs_less(
    attended_ST: torch.Tensor, labels_ST: torch.Tensor, tokens_per_layer: float
) -> bool:
    """Whether pairs go through with less work in shared rows than alone.

    A row of T tokens costs T for its products with weights and, `tokens_per_layer` being how
    many seen tokens cost as much as that, T^2 / tokens_per_layer for attention: a mask is worked
    through whole, where without one half is left out. Long answers behind a short prompt go
    alone.
    """
    lengths_SB = attended_ST.sum(1).view(2, -1)
    answers_SB = (labels_ST != -100).sum(1).view(2, -1)
    width_shared = int((lengths_SB[0] + answers_SB[1]).max()) - 1
    width_alone = int(lengths_SB.max()) - 1
    together = width_shared + width_shared**2 / tokens_per_layer
    apart = 2 * (width_alone + width_alone**2 / tokens_per_layer / 2)
    return together <= apart


def _row(
    chosen: torch.Tensor, rejected: torch.Tensor, num_prompt: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One pair's ids, positions and segments."""
    assert torch.equal(chosen[:num_prompt], rejected[:num_prompt]), "the prompts differ"
    first = num_prompt - 1
    parts = (chosen[:first], chosen[first:-1], rejected[first:-1])
    starts = (0, first, first)
    positions = [
        torch.arange(start, start + len(part), device=part.device)
        for start, part in zip(starts, parts, strict=True)
    ]
    segments = [torch.full_like(part, segment) for segment, part in enumerate(parts)]
    return torch.cat(parts), torch.cat(positions), torch.cat(segments)


def _sees(segments_BT: torch.Tensor) -> torch.Tensor:
    """Each token sees the prompt and its own segment, as far as they stand before it."""
    num_tokens = segments_BT.shape[1]
    of_query, of_key = segments_BT[:, :, None], segments_BT[:, None, :]
    before = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=of_key.device).tril()
    return (before & ((of_key == PROMPT) | (of_key == of_query)))[:, None]
