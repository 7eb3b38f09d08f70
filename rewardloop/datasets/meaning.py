"""Which columns change what a row means, which add nothing, and which nobody knows.

Owns the lists, and the rule that a filled column that means something is read
or its row is left out. Marks of deletion and review are looked at for every
format alike, as is a column that names a human language.
"""

import re

from rewardloop.datasets import labels
from rewardloop.datasets.fields import names
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.datasets.row import Row, parsed, says_something

_MEDIA = names(
    "image images img audio audios video videos picture pictures photo photos figure media files "
    "attachments"
)
_TOOLS = names("tools functions tool_calls function_call")
_MEANINGFUL = (
    _MEDIA
    | _TOOLS
    | names(
        """
    likes dislikes accuracy toxicity usefulness helpfulness_score correctness article articles
    paragraph paragraphs passages retrieved_passages story
    source_text instructions schema cot chain_of_thought thoughts scratchpad rejection_reason
    flag_reason
    label labels kto_tag liked is_liked disliked desirable is_desirable thumbs_up thumbs_down
    thumbs thumb vote feedback accepted rejected_by is_good good preferred is_preferred rating
    ratings score scores reward rewards stars quality grade overall_score rank ranks ranking winner
    winner_model_a winner_model_b winner_tie preference preferences overall_preference
    preference_strength choice better_response_id safer_response_id is_safe is_response_0_safe
    is_response_1_safe is_correct correct system system_prompt system_message system_instruction
    history input context contexts passage document documents prompt instruction question query
    chosen rejected messages conversations conversation dialog dialogue chat response responses
    output outputs completion completions answer answers generation generations target reference
    references chat_history conversation_history dialog_history dialogue_history previous_turns
    persona character background scenario evidence facts demonstrations few_shot
    few_shot_examples prefix suffix rejected_response is_bad bad is_wrong wrong incorrect
    is_disliked downvoted unsafe is_unsafe harmful is_harmful is_toxic safe harmless helpful
    is_helpful contents user_feedback human_feedback human_label preferred_output
    non_preferred_output score_chosen score_rejected chosen_score rejected_score chosen_rating
    rejected_rating chosen_reward rejected_reward tree_state weight train reasoning
    reasoning_content thinking incorrect_answers helpfulness choices options
    """
    )
)
_GRADING = re.compile(
    r"(^|[-_ ])(labels?|ratings?|verdict|judge?ment|feedback|thumbs?|votes?|upvotes|downvotes"
    r"|rewards?)([-_ ]|$)"
)
_NUMBERED = re.compile(
    r"^(response|answer|completion|generation|output|score|rating|rank|conversation|chosen|rejected)"
    r"([-_ ]?[0-9a-d]|_[jkwl])$"
)
_SIDES = re.compile(
    r"^(chosen|rejected|preferred|dispreferred|non_preferred|better|worse|best|worst|bad|negatives?"
    r"|win|winner|winning|lose|loser|losing)"
    r"([-_ ]|$)"
)
_OTHER_ANSWER = re.compile(
    r"^(gold|golden|ground_truth|correct|corrected|correction|expected|edited|improved|revised"
    r"|revision|rewritten|ideal)(_(answer|response|completion|output|reply|text))?$"
    r"|^(human|reference|target|alternative)_(answer|response|completion|output|reply)$"
)
"""An answer that is meant to be better than the row's own."""
_EARLIER = re.compile(r"(^|_)(history|previous|prev|past|prior|earlier|so_far)(_|$)")
_SYSTEM = re.compile(r"^(sys|system|preamble)(_(prompt|message|msg|instructions?|text|content))?$")
_DELETED = names("deleted is_deleted removed is_removed hidden is_hidden archived is_archived")
_TRUE = names("true t 1 1.0 yes y approved accepted valid verified passed pass ok keep")
_FALSE = names("false f no n none ok")
_DELETED_AT = re.compile(r"^(deleted|removed|archived)_(at|on|date|time)$")
_ENDED = names("finish_reason stop_reason finish_reasons")
_ENDED_BADLY = names("length max_tokens max_length content_filter error")
_TURN_KEYS = names("content value text")
_BAD_MARKS = names(
    """
    spam is_spam is_rejected discarded is_discarded cancelled was_cancelled aborted flagged
    is_flagged invalid is_invalid excluded exclude is_excluded skipped skip ignored ignore
    truncated is_truncated hallucinated is_hallucinated hallucination is_hallucination nsfw is_nsfw
    unfinished is_unfinished interrupted cut_off is_cut_off is_tie tied flipped is_flipped
    swapped is_swapped refusal is_refusal refused error errors reported is_reported
    moderation_flagged
    """
)
_REVIEWS = names(
    """
    review_result reviewed_ok approved is_approved accepted_by_reviewer valid is_valid passed
    verified is_verified human_verified keep include ok is_ok is_gold
    is_accurate accurate truthful is_truthful
    """
)
_MARKS = _DELETED | _BAD_MARKS | _REVIEWS
_MODERATIONS = names("openai_moderation toxic_chat_tag moderation")
_STATUS = names("status review_status record_status annotation_status")
_STATUS_OUT = names(
    """
    discarded rejected deleted removed cancelled canceled skipped draft spam invalid failed
    """
)
_STATUS_FINE = names(
    """
    submitted completed complete done approved accepted validated valid published active ok
    pending ready ready_for_export default success finished unchanged swapped
    """
)
_PASSED_OVER = names(
    """
    id ids idx index uid uuid key hash md5 sha sha1 sha256 category categories task tasks
    task_type subcategory topic topics domain domains subset split source sources dataset
    dataset_name origin url urls link links model models model_a model_b model_name model_names
    generator generators language lang languages timestamp tstamp date time created_at
    updated_at inserted_at created_date created updated name title author authors license
    licence turn turns num_turns num_responses difficulty tag tags metadata meta extra annotator
    annotators annotator_id worker worker_id batch batch_id good_natured project version seed
    prompt_source anony judge openai_moderation detoxify emojis toxic_chat_tag redacted toxic
    state country hashed_ip header user_id message_tree_id external_id post_id comment_id
    _server_id lead_time file_upload project_id total_annotations cancelled_annotations
    total_predictions comment_count unresolved_comment_count last_comment_updated_at updated_by
    comment_authors rank_source system_source individual_preference preference_statement
    preference_elaboration three_most_similar_preferences all_preferences_unprocessed severity
    prompt_response_group response_0_harm_category response_1_harm_category
    response_0_severity_level response_1_severity_level response_0_source response_1_source
    response_0_sha256 response_1_sha256 vote_count review_count parent_id message_id role
    inner_id allow_upload __index_level_0__ level_0
    """
)
_PASSED_OVER_ENDS = (
    "_id",
    "_ids",
    "_at",
    "_date",
    "_count",
    "_model",
    "_hash",
    "_tokens",
    "_len",
    "-model",
    "-id",
    "_policy",
)
_LANGUAGES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it",
    "portuguese": "pt", "russian": "ru", "chinese": "zh", "japanese": "ja", "korean": "ko",
    "arabic": "ar", "dutch": "nl", "polish": "pl", "turkish": "tr", "vietnamese": "vi",
    "ukrainian": "uk", "swedish": "sv", "indonesian": "id", "hindi": "hi", "czech": "cs",
    "catalan": "ca", "thai": "th", "hungarian": "hu", "persian": "fa", "hebrew": "he",
}  # fmt: skip
"""The commonest; a value that is none of them ("python", "code") is no human language."""


def check_marks(row: Row) -> None:
    """Looks at marks of deletion, review and language, before the row is read.

    Raises:
        RowLeftOut: the row is marked as not to be used.
    """
    for column in sorted(row.filled):
        name = plain_name(column)
        value = str(row.peek(column)).strip().lower()
        if name in _MARKS:
            row.used.add(column)
            _check_mark(name, value)
        elif name in _STATUS:
            _check_status(row, column, value)
        elif _DELETED_AT.match(name):
            row.used.add(column)
            raise RowLeftOut(Reason.PROMPT_DELETED, f'its "{column}" is {value}')
        elif name in _ENDED:
            _check_ended(row, column, value)
        elif name in _MODERATIONS:
            _check_moderation(row, column)
        elif name in ("language", "lang"):
            _check_language(row, column, value)


def _check_mark(name: str, value: str) -> None:
    is_true = value in _TRUE
    if name in _DELETED and is_true:
        raise RowLeftOut(Reason.PROMPT_DELETED, f'its "{name}" is {value}')
    is_bad = name in _BAD_MARKS and not _is_nothing(value)
    if is_bad or (name in _REVIEWS and not is_true):
        raise RowLeftOut(Reason.REJECTED_BY_REVIEWERS, f'its "{name}" is {value}')


def _is_nothing(value: str) -> bool:
    """A mark against the row that is not set, or a share of raters below one half."""
    try:
        return float(value) < 0.5
    except ValueError:
        return value in _FALSE or not says_something(value)


def _check_status(row: Row, column: str, value: str) -> None:
    row.used.add(column)
    if value in _STATUS_OUT:
        raise RowLeftOut(Reason.REJECTED_BY_REVIEWERS, f'its "{column}" is {value}')
    if value not in _STATUS_FINE:
        raise RowLeftOut(Reason.LABEL_NOT_UNDERSTOOD, f'its "{column}" is {value}')


def _check_ended(row: Row, column: str, value: str) -> None:
    """An answer that was cut off, or kept back, is none to learn."""
    row.used.add(column)
    if value in _ENDED_BADLY:
        raise RowLeftOut(Reason.REJECTED_BY_REVIEWERS, f'its "{column}" is {value}')


def _check_moderation(row: Row, column: str) -> None:
    row.used.add(column)
    if _is_flagged(row.peek(column)):
        raise RowLeftOut(Reason.FLAGGED, f'its "{column}" flags it')


def _is_flagged(moderation: object) -> bool:
    """OpenAI's form: objects with `flagged`, alone, in a list or by the moderator's name."""
    if isinstance(moderation, dict):
        return moderation.get("flagged") is True or any(map(_is_flagged, moderation.values()))
    return isinstance(moderation, list) and any(map(_is_flagged, moderation))


def _check_language(row: Row, column: str, value: str) -> None:
    code = _LANGUAGES.get(value, value.split("-")[0].split("_")[0])
    if row.language is None or code not in _LANGUAGES.values():
        return
    row.used.add(column)
    if code != row.language:
        raise RowLeftOut(Reason.PROMPT_OTHER_LANGUAGE, f'its "{column}" is {value}')


def unread(row: Row) -> list[str]:
    """Filled columns that were neither read nor are known to add nothing.

    Raises:
        RowLeftOut: one of them changes what the row means.
    """
    unknown = []
    for column in sorted(row.filled - row.used):
        name = plain_name(column)
        if column in row.passed_over or not says_something(row.peek(column)):
            continue
        if name in _MEDIA or _MEDIA & set(re.split(r"[-_ ]", name)):
            raise RowLeftOut(Reason.MEDIA, f'the column "{column}" holds what is no text')
        if name in _TOOLS or (
            {"tools", "functions"} & set(name.split("_")) and not is_passed_over(column)
        ):
            raise RowLeftOut(Reason.TOOL_TURNS, f'the column "{column}" holds tools')
        if means_something(column, row.peek(column)):
            raise RowLeftOut(
                Reason.COLUMN_NOT_READ, f'the column "{column}" is not read in a row of its format'
            )
        if not is_passed_over(column):
            unknown.append(column)
    return unknown


def means_something(column: str, value: object) -> bool:
    """Whether a column changes what a row means, by its name, or because it holds a verdict
    against the answer, or turns."""
    name = plain_name(column)
    if name in _MEANINGFUL or _is_graded_or_side(name):
        return True
    if labels.is_verdict_against(value) or _holds_turns(value):
        return True
    return isinstance(value, str | list | dict) and _is_other_text(name)


def _is_other_text(name: str) -> bool:
    """Another answer, earlier turns or a system turn, which a figure or a flag cannot be."""
    found = _OTHER_ANSWER.match(name) or _EARLIER.search(name) or _SYSTEM.match(name)
    return bool(found) and not is_passed_over(name)


def speaks_of_answer(key: str, value: object) -> bool:
    """Whether a key beside a turn's text grades it, marks it or adds to it."""
    if isinstance(value, dict):
        return any(speaks_of_answer(inner, held) for inner, held in value.items())
    try:
        _check_mark(plain_name(key), str(value).strip().lower())
    except RowLeftOut:
        return True
    if plain_name(key) in _ENDED:
        return str(value).strip().lower() in _ENDED_BADLY
    return not is_passed_over(key) and means_something(key, value)


def plain_name(column: str) -> str:
    """`isLiked` and `Is-Liked` are `is_liked`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)
    return re.sub(r"[-\s]+", "_", apart.strip()).lower()


def _holds_turns(value: object) -> bool:
    value = parsed(value)
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, dict) and _TURN_KEYS & v.keys() for v in value)
        and all({"role", "from"} & v.keys() for v in value)
    )


def _is_graded_or_side(name: str) -> bool:
    """`rejected_response` says something of the answers, `chosen_model` does not."""
    found = _NUMBERED.match(name) or _SIDES.match(name) or _GRADING.search(name)
    return bool(found) and not is_passed_over(name)


def is_passed_over(column: str) -> bool:
    """Whether a column is known to hold nothing that is trained on."""
    name = column.lower()
    return (
        name in _PASSED_OVER
        or name.endswith(_PASSED_OVER_ENDS)
        or name.startswith(("num_", "unnamed:"))
    )
