"""The method: the paper and its follow-ups, pure.

What a judge reads (`rubrics`, `enclosure`, `control_tokens`) and what is read from it
(`rubric`, `comparison` and `verdict`; how a score is spelled stands in `score_form`, what is the
judge's own in `own_words`, `introductions` and `own_sentence`), which answers become pairs or
examples (`pairing`, `answers`, `eft`), which new prompts are kept (`self_instruct`, `similarity`),
and what the figures mean (`agreement`, `judge_health`, `head_to_head`, `conformance`).
Knows no SQL, no HTTP and no model.
"""
