"""No secret stands in a message, whether this process knows it or only its form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.errors import UpstreamUnavailable, recordable
from rewardloop.redaction import KEY_PREFIX, keep_out, redacted
from tests.unit.cases import for_each

SECRET = "s3cr3t-of-the-test"


@for_each(
    "text, expected",
    [
        (
            f"postgresql+psycopg://me:{SECRET}@h:5/d is down",
            "postgresql+psycopg://***@h:5/d is down",
        ),
        (f"redis://:{SECRET}@h/0", "redis://***@h/0"),
        (f"https://{SECRET}@h/v1", "https://***@h/v1"),
        (f"http://me:a@{SECRET}@h:80/x@y", "http://***@h:80/x@y"),
        (f"'Authorization': 'Bearer {SECRET}'", "'Authorization': 'Bearer ***'"),
        (f"authorization: bearer  {SECRET}", "authorization: bearer  ***"),
        (f"host=h password={SECRET} user=me", "host=h password=*** user=me"),
        (f'{{"password": "{SECRET}", "user": 1}}', '{"password": "***", "user": 1}'),
        (f"?password={SECRET}&x=1", "?password=***&x=1"),
        (f"key {KEY_PREFIX}{'aB3_-' * 9} leaked", f"key {KEY_PREFIX}*** leaked"),
    ],
)
def test_a_secret_is_known_by_its_form(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8001 does not answer",
        "http://host/a:b@c?x=d:e@f",
        "set it to postgresql+psycopg://user:password@host:port/name",
        "send the key as `Authorization: Bearer <key>`",
        "FATAL: password authentication failed for user",
        "mail me@example.org about the bearer of bad news",
        "rlk_short",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_known_secret_is_masked_wherever_it_stands() -> None:
    keep_out("sk-foreign-key", "redis://:p%40ss%2Fword@h/0", "tiny")
    assert redacted("sk-foreign-keys p%40ss%2Fword p@ss/word tiny") == "***s *** *** tiny"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    keep_out("abcdef", "abcdef-and-more")
    assert redacted("x abcdef-and-more y") == "x *** y"


@given(
    st.text(
        st.characters(exclude_categories=["Zs", "Cc"], exclude_characters="/?#'\"@ "), min_size=6
    )
)
def test_a_password_in_an_address_is_never_shown(password: str) -> None:
    if password not in "postgresql://user:***@host:1/db":
        assert password not in redacted(f"x postgresql://user:{password}@host:1/db, y")


def test_errors_hold_no_secret() -> None:
    error = UpstreamUnavailable(f"http://me:{SECRET}@h does not answer")
    unforeseen = recordable(OSError(f"redis://:{SECRET}@h"))
    for told in (str(error), error.message, str(error.problem()), unforeseen.message):
        assert SECRET not in told
        assert "***@h" in told
