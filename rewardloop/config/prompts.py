"""Where an iteration's prompts come from."""

from pydantic import Field

from rewardloop.config.frozen import Frozen


class SelfInstruct(Frozen):
    """New prompts, written by a fixed prompt model from few shots (Yuan et al., section
    3.1.2: 8 shots, 6 of them human, T 0.6, p 0.9; the filters after Self-Instruct,
    arXiv 2212.10560, section 2.2)."""

    num_human_shots: int = Field(default=6, ge=1)
    """Prompts of the run's prompt dataset among the shots."""
    num_generated_shots: int = Field(default=2, ge=0)
    """Prompts that this run's prompt model wrote before; human ones until there are any."""
    temperature: float = Field(default=0.6, ge=0, le=2)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=128, ge=8)
    max_similarity: float = Field(default=0.7, gt=0, le=1)
    """ROUGE-L F1 to any prompt so far at which a prompt is too similar. The paper gives
    none; Self-Instruct uses 0.7."""
    max_evaluation_similarity: float = Field(default=0.5, gt=0, le=1)
    """The same against evaluation prompts: stricter, so that none leaks into training."""
    min_words: int = Field(default=3, ge=1)
    max_words: int = Field(default=150, ge=1)
    keywords: tuple[str, ...] = (
        *("image", "images", "picture", "pictures", "photo", "graph", "graphs", "chart"),
        *("diagram", "flowchart", "map", "maps", "draw", "plot", "file", "files", "video"),
        *("audio", "music", "link", "url", "website"),
    )
    """Words of tasks that a text model cannot do (after Self-Instruct)."""
    language: str | None = "en"
    """ISO 639-1 code that a prompt must be in; None takes all."""
    max_attempts_per_prompt: int = Field(default=12, ge=1)
    """Give up after so many written prompts for each wanted one."""
    min_fraction: float = Field(default=0.5, gt=0, le=1)
    """Of the wanted prompts, the part that must be found for the iteration to go on."""


class PromptSource(Frozen):
    dataset: str = "seed"
    """Name of an imported prompt dataset."""
    num_per_iteration: int = Field(default=32, ge=1)
    """Each iteration takes the next prompts of the dataset, starting over at its end."""
    self_instruct: SelfInstruct | None = None
    """If given, each iteration trains on new prompts, and the dataset serves as shots."""
