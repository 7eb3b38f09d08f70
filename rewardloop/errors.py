"""The one tree of exceptions.

Every error carries an HTTP status, a stable `kind`, and typed context, so that
a service can answer it as RFC 9457 problem details and a client can rebuild it.
A message names the thing that is wrong and what mends it. It never holds a secret: what
quotes an address with a password is masked when the error is made.
"""

from typing import Any, ClassVar

from rewardloop.redaction import redacted

_MEMBERS = {"type", "title", "status", "detail", "error"}
"""What every answered error holds; its other members are its context."""


class RewardloopError(Exception):
    """Something went wrong that a user can act on."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal"
    transient: ClassVar[bool] = False
    """Whether the same call may succeed later without anybody's help."""

    def __init__(self, message: str, **context: Any) -> None:
        self.message = redacted(message)
        super().__init__(self.message)
        self.context = context

    def problem(self) -> dict[str, Any]:
        """The error as RFC 9457 problem details."""
        return {
            "type": f"urn:rewardloop:error:{self.kind}",
            "title": self.kind.replace("-", " "),
            "status": self.status,
            "detail": self.message,
            **self.context,
        }

    def openai(self) -> dict[str, Any]:
        """The error as OpenAI clients read it, beside the problem details."""
        problem = self.problem()
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "code": self.status,
                "param": None,
            },
            **problem,
        }


class InvalidInput(RewardloopError):
    """A value that the caller gave cannot be used."""

    status = 422
    kind = "invalid-input"


class BrokenFile(InvalidInput):
    """A file has lines that cannot be read; context `lines` numbers them."""

    kind = "broken-file"


class NotServed(InvalidInput):
    """A request to the generator has a field that vLLM knows and its gate does not offer, or a
    conversation that the chat template refuses; the status is vLLM's own."""

    status = 400
    kind = "not-served"


class NotFound(RewardloopError):
    """The named thing does not exist."""

    status = 404
    kind = "not-found"


class Conflict(RewardloopError):
    """The request contradicts what is stored."""

    status = 409
    kind = "conflict"


class Unauthorized(RewardloopError):
    """The key is missing or wrong."""

    status = 401
    kind = "unauthorized"


class Forbidden(RewardloopError):
    """The key is right and lacks the scope that the route needs."""

    status = 403
    kind = "forbidden"


class MethodNotAllowed(RewardloopError):
    """The path exists, and not for this method; context `allowed` lists those that it has."""

    status = 405
    kind = "method-not-allowed"


class BodyTooSlow(RewardloopError):
    """A request's body did not come in time."""

    status = 408
    kind = "body-too-slow"
    transient = True


class UnsupportedMedia(RewardloopError):
    """The body is of another media type than the route reads."""

    status = 415
    kind = "unsupported-media-type"


class TooManyRequests(RewardloopError):
    """One key has more requests in flight, or sends more in a second, than it may."""

    status = 429
    kind = "too-many-requests"
    transient = True


class UpstreamUnavailable(RewardloopError):
    """A service did not answer, or answered that it is overloaded."""

    status = 503
    kind = "upstream-unavailable"
    transient = True


class UpstreamFailed(UpstreamUnavailable):
    """A service took one request and did not answer it: an internal error, a broken connection,
    no answer in time. It may be the request's own fault, which the others' success tells."""

    status = 502
    kind = "upstream-failed"


class Overdue(UpstreamFailed):
    """A service took one request and has not answered it for far longer than others take."""

    kind = "overdue"


class TooLarge(InvalidInput):
    """A request asks for more than one request may."""

    status = 413
    kind = "too-large"


class UpstreamRejected(RewardloopError):
    """A service understood the request and refused it; asking again will not help."""

    status = 502
    kind = "upstream-rejected"


class UpstreamMismatch(RewardloopError):
    """A server answers as the wanted service would not: a wrong address or model's name."""

    status = 502
    kind = "upstream-mismatch"


class UnknownModel(UpstreamMismatch):
    """An engine does not answer by the model that was asked for, whatever the prompt."""

    status = 404
    kind = "unknown-model"


class UnreadableAnswer(UpstreamMismatch):
    """A successful answer is no JSON: it was cut, or is a page of HTML. One of them says little,
    so it is asked again; if several requests in a row get one, it is a wrong server."""

    kind = "unreadable-answer"


class PromptTooLong(UpstreamRejected):
    """A prompt and its answer do not fit into the model's context."""

    status = 422
    kind = "prompt-too-long"


class CheckpointInvalid(RewardloopError):
    """A checkpoint's files are missing or differ from its manifest."""

    kind = "checkpoint-invalid"


class SwapFailed(RewardloopError):
    """A replica could not be brought to the wanted version."""

    status = 502
    kind = "swap-failed"


class DiskFull(RewardloopError):
    """There is not enough room to write a checkpoint."""

    status = 507
    kind = "disk-full"


class TrainingFailed(RewardloopError):
    """The training child ended without a checkpoint."""

    kind = "training-failed"


class TrainingDiverged(TrainingFailed):
    """A loss, a gradient or a weight is not finite; context `step` and `quantity`."""

    kind = "diverged"


class TrainingKilled(TrainingFailed):
    """The training child was ended from outside, and again when it was started once more."""

    kind = "training-killed"


class OutOfMemory(TrainingFailed):
    """The training needs more memory than there is."""

    kind = "out-of-memory"


class NoPairs(RewardloopError):
    """Every prompt's best and worst response are tied, so there is nothing to train on."""

    kind = "no-preference-pairs"


class NoExamples(RewardloopError):
    """A step of the method found nothing to train on; the message says why."""

    kind = "no-training-examples"


class TooFewPrompts(RewardloopError):
    """The prompt model wrote too few prompts that passed the filters."""

    kind = "too-few-prompts"


class TooManyDead(RewardloopError):
    """More prompts failed for good than `rollout.max_dead_share` allows."""

    kind = "too-many-dead"


class EvaluationFailed(RewardloopError):
    """A head-to-head evaluation ended without a result."""

    kind = "evaluation-failed"


class JudgeCollapsed(RewardloopError):
    """The judge's scores passed a threshold of `health`, so nothing was trained on them."""

    kind = "judge-collapsed"


class EnvironmentUnfit(RewardloopError):
    """This machine lacks something that the stack needs."""

    kind = "environment-unfit"


class Unexpected(RewardloopError):
    """Something that no code foresaw; its message begins with the exception's type.

    Transient, for nobody knows that it will not pass.
    """

    kind = "unexpected"
    transient = True


def recordable(error: Exception) -> RewardloopError:
    """The error as it is stored: one of ours as it is, any other with its type's name."""
    if isinstance(error, RewardloopError):
        return error
    return Unexpected(f"{type(error).__name__}: {error}")


def from_problem(problem: dict[str, Any], status: int) -> RewardloopError:
    """Rebuild the error that a service answered with, from its problem details."""
    kind = str(problem.get("type", "")).rpartition(":")[2]
    detail = str(problem.get("detail") or problem)
    known = {error.kind: error for error in _tree(RewardloopError)}
    if kind in known:
        context = {name: value for name, value in problem.items() if name not in _MEMBERS}
        return known[kind](detail, **context)
    if status in (408, 429, 503, 529):
        return UpstreamUnavailable(detail)
    if status >= 500:
        return UpstreamFailed(detail)
    if status in (400, 413, 422):
        return UpstreamRejected(detail)
    return UpstreamMismatch(detail)


def _tree(root: type[RewardloopError]) -> list[type[RewardloopError]]:
    return [root, *(error for child in root.__subclasses__() for error in _tree(child))]
