"""Where an iteration's prompts come from."""

from typing import Annotated

from pydantic import Field, field_validator

from rewardloop.config.bounds import LONG, MANY, AtMost
from rewardloop.config.frozen import Frozen

_CODES = (
    "ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu "
    "ext fa fi fo fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is "
    "it ja jv ka kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my "
    "ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw "
    "ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx"
)
LANGUAGES = frozenset(_CODES.split())
"""What the language identifier of `rewardloop.method.self_instruct` tells apart. Written out,
so that a config is refused before a run begins and without loading the identifier's 100 MB."""


class SelfInstruct(Frozen):
    """New prompts, written by a fixed prompt model from few shots (Yuan et al., section
    3.1.2: 8 shots, 6 of them human, T 0.6, p 0.9; the filters after Self-Instruct,
    arXiv 2212.10560, section 2.2)."""

    num_human_shots: Annotated[int, AtMost(100)] = Field(default=6, ge=1)
    """Prompts of the run's prompt dataset among the shots."""
    num_generated_shots: Annotated[int, AtMost(100)] = Field(default=2, ge=0)
    """Prompts that this run's prompt model wrote before; human ones until there are any."""
    temperature: float = Field(default=0.6, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: Annotated[int, AtMost(LONG)] = Field(default=128, ge=8)
    max_similarity: float = Field(default=0.7, gt=0, le=1)
    """ROUGE-L F1 to any prompt so far at which a prompt is too similar. The paper gives
    none; Self-Instruct uses 0.7."""
    max_evaluation_similarity: float = Field(default=0.5, gt=0, le=1)
    """The same against evaluation prompts: stricter, so that none leaks into training."""
    min_words: Annotated[int, AtMost(100_000)] = Field(default=3, ge=1)
    max_words: Annotated[int, AtMost(100_000)] = Field(default=150, ge=1)
    keywords: tuple[str, ...] = (
        *("image", "images", "picture", "pictures", "photo", "graph", "graphs", "chart"),
        *("diagram", "flowchart", "map", "maps", "draw", "plot", "file", "files", "video"),
        *("audio", "music", "link", "url", "website"),
    )
    """Words of tasks that a text model cannot do (after Self-Instruct)."""
    language: str | None = "en"
    """One of `LANGUAGES` (ISO 639 codes) that a prompt must be in; None takes all."""
    max_attempts_per_prompt: Annotated[int, AtMost(1000)] = Field(default=12, ge=1)
    """Give up after so many written prompts for each wanted one."""
    min_fraction: float = Field(default=0.5, gt=0, le=1)
    """Of the wanted prompts, the part that must be found for the iteration to go on."""

    @field_validator("language")
    @classmethod
    def _can_be_told(cls, language: str | None) -> str | None:
        if language is not None and language not in LANGUAGES:
            raise ValueError(
                f"{language!r} cannot be told from other languages. Take one of "
                f"{', '.join(sorted(LANGUAGES))}, or null for all languages"
            )
        return language


class PromptSource(Frozen):
    dataset: str = "seed"
    """Name of an imported prompt dataset."""
    num_per_iteration: Annotated[int, AtMost(MANY)] = Field(default=32, ge=1)
    """Each iteration takes the next prompts of the dataset, starting over at its end."""
    allow_evaluation_prompts: bool = False
    """Whether prompts that stand in the datasets of `evaluation` or early stopping too are
    trained on. If not, they are left out and counted, in a bootstrap's dataset as well."""
    self_instruct: SelfInstruct | None = None
    """If given, each iteration trains on new prompts, and the dataset serves as shots."""
