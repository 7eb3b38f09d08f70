"""One pure module for each family of formats, and the table that recognises a row's.

A format knows its columns and what each of them says; it turns a `Row` into
`Conversation`s and infers nothing. Which answers are good, and how they rank,
is derived from these in one place for all (`grouping`).
"""
