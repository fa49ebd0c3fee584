"""Requests and answers in LibreTranslate's form, and how often a client may ask."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.serve.messages import Offer, Refused, Text, parse, read_fields
from admin_nmt.serve.rate import RateLimit

OFFER = Offer("de", "en", char_limit=20, max_alternatives=4)


def request(q: Any, **fields: Any) -> Any:
    return parse({"q": q, "source": "de", "target": "en"} | fields, OFFER)


@given(st.text("a \r\n\u2028"))
def test_every_line_keeps_its_place_and_its_end(text: str) -> None:
    split = Text.of(text)
    assert split.translations([[line] for line in split.lines]) == [text]
    assert not any("\n" in line or "\r" in line for line in split.lines)


def test_the_answer_has_the_form_of_the_question() -> None:
    found = [["one", "two", "three"], ["", ""], ["uno"]]
    assert request("a\n\nb").lines == ["a", "", "b"]
    assert request("a\n\nb").answer(found) == {"translatedText": "one\n\nuno"}
    assert request("a\n\nb", alternatives=1).answer(found) == {
        "translatedText": "one\n\nuno",
        "alternatives": ["two\n\nuno"],
    }
    assert request(["a", "", "b"], alternatives=2).answer(found) == {
        "translatedText": ["one", "", "uno"],
        "alternatives": [["two", "three"], [], []],
    }
    assert request([]).answer([]) == {"translatedText": []}
    assert request("").answer([[""]]) == {"translatedText": ""}


def test_the_same_text_is_offered_once() -> None:
    answer = request("a", alternatives=3).answer([["one", "one", "two", "one"]])
    assert answer == {"translatedText": "one", "alternatives": ["two"]}


def test_the_limit_counts_all_texts_and_takes_what_is_just_allowed() -> None:
    assert request("x" * 20) and request(["x" * 9, "x" * 10]) and request([""] * 21)
    for q in ("x" * 21, ["x" * 10, "x" * 10], [""] * 22):
        with pytest.raises(Refused, match=r"q has 2\d characters, of which 20 are allowed") as e:
            request(q)
        assert e.value.status == 413
    longest = json.dumps({"q": "\U0001f600" * 20, "source": "de", "target": "en"})
    assert len(longest) <= OFFER.max_bytes and parse(json.loads(longest), OFFER)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"q": None}, "q is missing"),
        ({"q": 7}, "q is neither"),
        ({"q": ["a", 7]}, "q is neither"),
        ({"q": {"a": 1}}, "q is neither"),
        ({"source": None}, "source is missing"),
        ({"target": ""}, "target is missing"),
        ({"source": "fr"}, "source fr is not supported: this model translates from de to en"),
        ({"target": "de"}, "target de is not supported"),
        ({"target": ["en"]}, "is not supported"),
        ({"target": "x" * 1000}, "x{40}[.]{3} is not supported"),
        ({"format": "html"}, "format html: only text"),
        ({"source": "\ud83d"}, "source \ufffd is not supported"),
        ({"target": ["\udc00"]}, "target .* is not supported"),
        ({"format": "\ud83d"}, "format \ufffd: only text"),
        ({"alternatives": "\ud83d"}, "alternatives \ufffd: a number"),
        ({"alternatives": 5}, "alternatives 5: a number from 0 to 4"),
        ({"alternatives": -1}, "alternatives -1"),
        ({"alternatives": True}, "alternatives True"),
        ({"alternatives": 1.5}, "alternatives 1.5"),
        ({"alternatives": "²"}, "alternatives ²"),
        ({"alternatives": "9" * 5000}, "alternatives 9+"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        request("a", **fields) if "q" not in fields else request(**fields)
    assert refused.value.status == 400 and len(refused.value.message.encode()) < 150


def test_auto_is_the_only_source_and_other_fields_are_ignored() -> None:
    found = request("a", source="auto", format="text", api_key="k", alternatives="2")
    assert (found.lines, found.alternatives) == (["a"], 2)


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    (line,) = request(json.loads('"a\\ud83d b\\ud83d\\ude00"')).lines
    assert line == "a\ufffd b\U0001f600"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"q=%ff&q", "application/x-www-form-urlencoded", 200),
        (b"q=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=1"] * 200), "application/x-www-form-urlencoded", 400),
        (b"--x", "multipart/form-data; boundary=x", 415),
    ],
)
def test_bodies_of_any_kind(body: bytes, kind: str, status: int) -> None:
    try:
        read_fields(body, kind)
    except Refused as refused:
        assert refused.status == status and "\n" not in refused.message
    else:
        assert status == 200


def test_a_form_is_read_like_json() -> None:
    form = b"q=gr%C3%BCn+ist&source=de&target=en&alternatives=1"
    fields = read_fields(form, "application/x-www-form-urlencoded; charset=utf-8")
    found = parse(fields, OFFER)
    assert (found.lines, found.as_list, found.alternatives) == (["grün ist"], False, 1)
    assert read_fields(b'{"q": "a"}', "") == {"q": "a"}


def test_a_client_may_ask_so_many_times_and_the_store_fills_up_evenly() -> None:
    now = 0.0
    rate = RateLimit(6, clock=lambda: now)
    assert [rate.delay("a") for _ in range(8)] == [0] * 6 + [10, 10]
    assert rate.delay("b") == 0
    now = 9.0
    assert rate.delay("a") == pytest.approx(1)
    now = 10.0
    assert rate.delay("a") == 0 and rate.delay("a") == 10
    now = 10_000.0
    assert [rate.delay("a") for _ in range(7)] == [0] * 6 + [10]
    assert not any(RateLimit(0).delay("a") for _ in range(10_000))


def test_clients_that_have_not_asked_for_long_are_forgotten() -> None:
    now = 0.0
    rate = RateLimit(6, clock=lambda: now, max_clients=100)
    for number in range(1000):
        now = number
        assert rate.delay(str(number)) == 0
    assert len(rate._stores) <= 100
    assert [rate.delay("999") for _ in range(6)] == [0] * 5 + [10]
