"""The table of formats, in the order in which a row is tried against them.

The first that fits reads the row. A shape with more columns of its own stands
before one with fewer; a prompt without an answer comes last.
"""

from enum import StrEnum

from rewardloop.datasets import fields
from rewardloop.datasets.formats import (
    chat,
    columns,
    exports,
    graded,
    oasst,
    pairs,
    preference,
    questions,
    two_answers,
)
from rewardloop.datasets.formats.shape import RowFormat
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row


class Format(StrEnum):
    AUTO = "auto"
    """Recognised row by row."""
    SEED = "seed"
    """{"id", "category", "prompt", "response"}: Rewardloop's own."""
    OASST = "oasst"
    """Open Assistant's trees, and its flat files of messages."""
    ALPACA = "alpaca"
    """{"instruction", "input", "output"}, also with system, history, chosen, rejected, kto_tag;
    AlpacaEval's outputs."""
    SHAREGPT = "sharegpt"
    """{"conversations": [{"from", "value"}]}, also with chosen and rejected."""
    TRL = "trl"
    """{"prompt", "completion" or "chosen"} or {"messages"}: texts or messages."""
    SELF_INSTRUCT = "self_instruct"
    """{"id", "instruction", "instances": [{"input", "output"}]}."""
    RANKED = "ranked"
    """{"id", "category", "prompt", "responses": [{"rank", "text"}]}: Rewardloop's own."""
    ALPACA_FARM = "alpaca_farm"
    """{"instruction", "input", "output_1", "output_2", "preference"}."""
    ARENA = "arena"
    """{"conversation_a", "conversation_b", "winner"}: Chatbot Arena."""
    ARGILLA = "argilla"
    """Argilla's records, as JSON or as a dataset's columns."""
    CAPYBARA = "capybara"
    """{"conversation", "chosen", "rejected"}: Capybara's preference pairs."""
    COLUMNS = "columns"
    """A question and an answer under other common names."""
    CONVERSATION = "conversation"
    """{"conversation": [turns]}: LMSYS-Chat, WildChat, Capybara."""
    DISTILABEL = "distilabel"
    """{"instruction", "generations", "ratings"}."""
    DOLLY = "dolly"
    """{"instruction", "context", "response", "category"}."""
    HELPSTEER = "helpsteer"
    """{"prompt", "response", "helpfulness", ...}: HelpSteer and HelpSteer2."""
    HELPSTEER2 = "helpsteer2"
    """{"prompt", "response_1", "response_2", "preference_strength"}: HelpSteer2-Preference."""
    HELPSTEER3 = "helpsteer3"
    """{"context", "response1", "response2", "overall_preference"}."""
    HH_RLHF = "hh_rlhf"
    """{"chosen", "rejected"}: transcripts with "Human:" and "Assistant:"."""
    LABEL_STUDIO = "label_studio"
    """{"data", "annotations": [{"result"}]}."""
    MT_BENCH = "mt_bench"
    """{"question_id", "turns", "reference"}."""
    NECTAR = "nectar"
    """{"prompt", "answers": [{"answer", "rank"}]}."""
    OPENAI = "openai"
    """{"input": {"messages"}, "preferred_output", "non_preferred_output"}."""
    OPENORCA = "openorca"
    """{"system_prompt", "question", "response"}."""
    ORCA_DPO = "orca_dpo"
    """{"system", "question", "chosen", "rejected"}."""
    PROMETHEUS = "prometheus"
    """{"orig_instruction", "orig_response", "orig_score", "orig_reference_answer"}."""
    SAFE_RLHF = "safe_rlhf"
    """{"prompt", "response_0", "response_1", "better_response_id"}: PKU-SafeRLHF."""
    SHP = "shp"
    """{"history", "human_ref_A", "human_ref_B", "labels"}."""
    STACK_EXCHANGE = "stack_exchange"
    """{"question", "answers": [{"text", "pm_score"}]}."""
    SUMMARIZE = "summarize"
    """{"info", "summaries", "choice"}: OpenAI's summaries from feedback."""
    TRANSCRIPT = "transcript"
    """{"text"}: a conversation that is rendered with the turn marks of a known template."""
    ULTRACHAT = "ultrachat"
    """{"data": [texts]}: the raw UltraChat."""
    ULTRAFEEDBACK = "ultrafeedback"
    """{"instruction", "completions": [{"response", "overall_score"}]}."""
    VICUNA = "vicuna"
    """{"question_id", "text"}."""
    WEBGPT = "webgpt"
    """{"question": {"full_text"}, "answer_0", "score_0", "answer_1", "score_1"}."""


FORMATS: tuple[RowFormat, ...] = (
    *oasst.FORMATS,
    *exports.FORMATS,
    *graded.FORMATS,
    *pairs.FORMATS,
    *two_answers.FORMATS,
    *questions.FORMATS,
    *preference.FORMATS,
    *chat.FORMATS,
    *columns.FORMATS,
)


def recognised(row: Row, wanted: Format) -> RowFormat:
    """The format of a row, or the wanted one if the row may be of it.

    Raises:
        RowLeftOut: no format fits, or another one than the wanted.
    """
    if wanted is not Format.AUTO:
        return _wanted(row, wanted)
    found = _all_fitting(row)
    if not found:
        raise RowLeftOut(
            Reason.UNKNOWN_SHAPE, f"no format has these columns ({fields.keys_of(row)})"
        )
    return found[0]


def _wanted(row: Row, wanted: Format) -> RowFormat:
    found = _all_fitting(row)
    if not found:
        raise RowLeftOut(
            Reason.UNKNOWN_SHAPE, f"no format has these columns ({fields.keys_of(row)})"
        )
    for format in found:
        if format.name == wanted:
            return format
    looks = found[0].name
    raise RowLeftOut(
        Reason.OTHER_FORMAT,
        f"by its columns ({fields.keys_of(row)}) it is of the format {looks}, not {wanted}",
    )


def _all_fitting(row: Row) -> list[RowFormat]:
    """By the filled columns; then by those that are there, which hold null or nothing."""
    filled = [format for format in FORMATS if format.fits(row.filled, row)]
    if filled:
        return filled
    there = frozenset(row)
    named = [format for format in FORMATS if format.fits(there, row)]
    return named + [f for f in columns.PROMPTS_ALONE if f.fits(there, row)]
