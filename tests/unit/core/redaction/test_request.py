"""What leaves for the provider: the gate, the walk, the four answers."""

import json
import threading
from typing import Any

import orjson
import pytest

from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRestorer, Blocked, Redacted, Unreadable, Untouched
from proxy.core.redaction.detect import build_detector
from proxy.terms.errors import RedactionFault
from proxy.terms.redaction import Action, Finding, Unscanned
from tests.unit.core.redaction.doubles import TinyDetector, chat, contents, dumped, redacted, redactor

PNG = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUg" * 20


class Broken(TinyDetector):
    def find(self, text: str) -> list[Finding]:
        raise KeyError("ana@example.com")


class AtSigns(TinyDetector):
    def may_contain(self, raw: bytes) -> bool:
        return b"@" in raw


def test_silent_gate_leaves_the_bytes_alone_and_parses_nothing() -> None:
    """The common request costs a gate and nothing else; even broken JSON is the provider's to judge."""
    for body in (chat("hello"), b"{not json", b'{"a":1,"a":2}', b"\xff\xfe", b""):
        assert Untouched() == redactor().redact(body, Dialect.CHAT)


def test_value_is_replaced_and_the_rest_of_the_document_stays() -> None:
    """Unknown fields, order and numbers are the application's."""
    body = dumped({"zeta": [1, 2.5, None], "model": "m", "messages": [{"role": "user", "content": "I am ana@x.com."}]})
    verdict = redacted(body)

    assert b'{"zeta":[1,2.5,null],"model":"m","messages":[{"role":"user","content":"I am [EMAIL-1]."}]}' == verdict.body
    assert ({"EMAIL": 1}, {"EMAIL": 1}) == (verdict.findings, verdict.sanitized)
    assert "I am ana@x.com." == verdict.vault.restore_text("I am [EMAIL-1].")


def test_one_value_has_one_placeholder_and_another_spelling_a_kindred_one() -> None:
    """The model must see what is the same, and each spelling must come back as it was."""
    verdict = redacted(chat("529.982.247-25 ana@x.com 52998224725 ana@x.com bob@y.org 529.982.247-25"))

    assert ["[CPF-1] [EMAIL-1] [CPF-1b] [EMAIL-1] [EMAIL-2] [CPF-1]"] == contents(verdict)
    assert {"CPF": 2, "EMAIL": 2} == verdict.findings


def test_placeholders_stay_the_same_over_the_turns_of_a_conversation() -> None:
    """Provider prompt caches need identical prefixes, and the model needs a memory."""
    first = contents(redacted(chat("ana@x.com", "bob@y.org", user="zoe@z.net")))
    later = contents(redacted(chat("ana@x.com", "bob@y.org", "who? eve@x.com ana@x.com", user="zoe@z.net")))

    assert first == later[:2]
    assert "who? [EMAIL-4] [EMAIL-2]" == later[2]


@pytest.mark.parametrize(
    "own",
    ["[EMAIL-1]", "[email-1]", "[EMAIL\\-1]", "\uff3bEMAIL-1\uff3d", "[ EMAIL 1 ]", "\\[EMAIL-1\\]", "[a[EMAIL-1]"],
)
def test_text_that_already_looks_like_a_placeholder_keeps_its_number(own: str) -> None:
    """What the user wrote in brackets must never come back as somebody's address."""
    verdict = redacted(chat(f"{own} and ana@x.com"))

    assert [f"{own} and [EMAIL-2]"] == contents(verdict)
    assert own == verdict.vault.restore_text(own)


def test_look_alike_inside_escaped_arguments_is_reserved_too() -> None:
    """An escape is no way around the reservation."""
    verdict = redacted(dumped({"messages": [
        {"role": "assistant", "tool_calls": [{"function": {"arguments": '{"a":"\\u005bEMAIL-1\\u005d"}'}}]},
        {"role": "user", "content": "ana@x.com"},
    ]}))  # fmt: skip

    assert "[EMAIL-2]" == verdict.document["messages"][1]["content"]


def test_redacting_again_changes_nothing() -> None:
    """Stand-ins of ours are no findings."""
    for action in (Action.RESTORE, Action.REDACT, Action.HASH):
        once = redacted(chat("ana@x.com 529.982.247-25"), default=action)
        again = redactor(default=action).redact(once.body, Dialect.CHAT)
        assert isinstance(again, Untouched), again


def test_each_action_writes_its_own_stand_in() -> None:
    """The words of the policy file."""
    body = chat("ana@x.com 529.982.247-25 4111 1111 1111 1111")
    actions = {"CPF": Action.REDACT, "CREDIT_CARD": Action.MASK}
    verdict = redacted(body, actions=actions)
    assert ["[EMAIL-1] [CPF_REDACTED] **** **** **** 1111"] == contents(verdict)
    assert 1 == len(verdict.vault)

    hashed = contents(redacted(body, default=Action.HASH))[0]
    assert hashed == contents(redacted(body, default=Action.HASH))[0]
    assert hashed != contents(redacted(body, default=Action.HASH, hash_key=b"other tenant"))[0]
    assert "[CPF:" in hashed


def test_hash_is_the_same_for_two_spellings() -> None:
    """A pseudonym stands for the person, not for the punctuation."""
    one, other = contents(redacted(chat("529.982.247-25", "52998224725"), default=Action.HASH))

    assert one == other


def test_hash_without_a_key_is_refused_at_load() -> None:
    """An unkeyed hash of a CPF is the CPF."""
    with pytest.raises(ValueError, match="key"):
        redactor(default=Action.HASH, hash_key=b"")


def test_blocked_request_names_types_and_places_but_no_values() -> None:
    """The caller must find it; nobody else may read it."""
    body = dumped({"messages": [{"role": "user", "content": [{"type": "text", "text": "4111 1111 1111 1111"}]}],
                   "metadata": {"ana@x.com": "4111111111111111"}})  # fmt: skip
    verdict = redactor(actions={"CREDIT_CARD": Action.BLOCK}).redact(body, Dialect.CHAT)

    assert (
        Blocked(("CREDIT_CARD",), ("messages[0].content[0].text", "metadata.*"), {"CREDIT_CARD": 2, "EMAIL": 1})
        == verdict
    )


def test_observe_counts_and_leaves_the_bytes_identical() -> None:
    """Roll-out in production must be free of effects."""
    body = json.dumps({"messages": [{"role": "user", "content": "ana@x.com"}]}, indent=1).encode()
    for options in ({"default": Action.OBSERVE}, {"default": Action.BLOCK, "observe_only": True}):
        verdict = redactor(**options).redact(body, Dialect.CHAT)
        assert isinstance(verdict, Untouched)
        assert {"EMAIL": 1} == verdict.findings


def test_off_allowed_and_unsure_values_are_not_even_counted() -> None:
    """Three ways to say: not this."""
    body = chat("Support@Example.com 529.982.247-25 ORD-11122233344")
    options: list[dict[str, Any]] = [
        {"actions": {"EMAIL": Action.OFF, "CPF": Action.OFF}},
        {"allow_values": frozenset({"support@example.com", "52998224725"}), "allow_patterns": ("ORD-[0-9]{11}",)},
        {"min_score": 0.95},
    ]
    for option in options:
        verdict = redactor(**option).redact(body, Dialect.CHAT)
        assert isinstance(verdict, Untouched), option
        assert {} == verdict.findings


@pytest.mark.parametrize(
    ("plan", "left"),
    [
        ({"allow_domains": ("y.org",)}, "bob@y.org zoe@in.y.org"),
        ({"allow_domains": ("in.y.org",)}, "zoe@in.y.org"),
        ({"scores": {"EMAIL": 0.99}}, "ana@x.com bob@y.org zoe@in.y.org eve@noty.org"),
        ({"min_score": 0.99, "scores": {"EMAIL": 0.5}}, ""),
    ],
)
def test_rules_and_domains_leave_what_they_allow(plan: dict[str, Any], left: str) -> None:
    """A company's own addresses are nobody's secret; an unsure type can ask for more certainty than the rest."""
    mails = "ana@x.com bob@y.org zoe@in.y.org eve@noty.org"
    verdict = redactor(**plan).redact(chat(mails), Dialect.CHAT)
    leaves = contents(verdict)[0] if isinstance(verdict, Redacted) else mails

    assert left == " ".join(word for word in leaves.split() if "@" in word)


@pytest.mark.parametrize(
    "patterns",
    [
        ("^[a-z]+@corp\\.example\\.com$",),
        ("(?P<who>zoe)@.*", "(?P<who>[a-z]+)@corp\\.example\\.com"),
        ("nothing", "<[a-z@.]+> of ours", "(?i)^ANA@CORP\\.EXAMPLE\\.COM$"),
        ("x", "to <ana@corp\\.example\\.com>"),
    ],
    ids=["anchored", "one name twice", "one of several", "with words about it"],
)
def test_pattern_allows_a_value_that_it_is_or_that_it_covers(patterns: tuple[str, ...]) -> None:
    """All patterns are asked in one pass first; none may lose its meaning beside the others."""
    verdict = redacted(chat("to <ana@corp.example.com> of ours, not bob@x.org"), allow_patterns=patterns)

    assert ["to <ana@corp.example.com> of ours, not [EMAIL-1]"] == contents(verdict)


def test_bad_allow_pattern_is_refused_at_load() -> None:
    """Look-around and the like have no linear time."""
    with pytest.raises(ValueError, match="RE2"):
        redactor(allow_patterns=("(?=x)",))


def test_repeated_key_is_written_once_when_anything_fired() -> None:
    """Parsers disagree about which of two wins; what we read must be what the provider reads."""
    body = b'{"model":"m","x":"ana@x.com","x":"fine"}'
    verdict = redactor().redact(body, Dialect.CHAT)

    assert isinstance(verdict, Redacted)
    assert (b'{"model":"m","x":"fine"}', True) == (verdict.body, verdict.vault.is_empty)


def test_repeated_key_behind_an_escape_is_written_once() -> None:
    """An escape in the value that loses is the same trick once more."""
    verdict = redactor().redact(b'{"x":"ana\\u0040example.com","x":"fine"}', Dialect.CHAT)

    assert isinstance(verdict, Redacted)
    assert b'{"x":"fine"}' == verdict.body


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "100", "t" : "x \\"k\\": y", "b":[{"a":1.50}]}',
        b'{"a":"1e5 100","f":1.0e2,"s":"caf\\u00e9"}',
    ],
)
def test_fired_but_clean_body_stays_byte_for_byte(body: bytes) -> None:
    """Spaces, escapes and number spellings are not ours to tidy."""
    assert isinstance(redactor().redact(body, Dialect.CHAT), Untouched)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"ana@x.com"',
        b'\xef\xbb\xbf{"a":"ana@x.com"}',
        b'{"a":"ana@x.com\xff"}',
        b'{"a":"ana@x.com","n":NaN}',
        b'{"a":"ana@x.com \\ud83d","n":NaN}',
        b"ana@x.com",
        b'{"a":' * 500 + b'"ana@x.com"' + b"}" * 500,
        b"[" * 100_000 + b'"ana@x.com"' + b"]" * 100_000,
    ],
)
def test_body_that_cannot_be_read_is_refused_when_the_gate_fired(body: bytes) -> None:
    """Unread is unsent; where policy only observes, it is counted."""
    assert isinstance(redactor().redact(body, Dialect.CHAT), Unreadable)
    assert Untouched(unscanned_bytes=len(body)) == redactor(observe_only=True).redact(body, Dialect.CHAT)


def test_escapes_hide_nothing() -> None:
    """JSON may write any letter as an escape, at any level."""
    inner = json.dumps({"to": "ana@x.com"}).replace("@", "\\u0040")
    bodies = [
        b'{"messages":[{"role":"user","content":"ana\\u0040x.com"}]}',
        dumped({"messages": [{"role": "user", "content": inner}]}),
        dumped({"messages": [{"role": "user", "content": json.dumps({"deep": inner})}]}),
    ]
    for body in bodies:
        verdict = redacted(body)
        assert "[EMAIL-1]" in contents(verdict)[0]
        assert "x.com" not in contents(verdict)[0]


def test_escape_that_silences_the_gate_is_undone_first() -> None:
    """The gate reads bytes; what it cannot see behind an escape is shown to it without."""
    shared = redactor(detector=AtSigns())
    clean = b'{"a":"caf\\u00e9"}'
    inner = json.dumps(json.dumps({"to": "ana@x.com"}).replace("@", "\\u0040")).encode()

    assert isinstance(shared.redact(b'{"a":"ana\\u0040x.com"}', Dialect.CHAT), Redacted)
    assert isinstance(shared.redact(b'{"a":' + inner + b"}", Dialect.CHAT), Redacted)
    assert isinstance(shared.redact(clean, Dialect.CHAT), Untouched)
    assert isinstance(shared.redact(b'{"a":"\\u00"}', Dialect.CHAT), Unreadable)


def test_lone_surrogate_in_a_fired_body_is_carried_on_as_its_escape() -> None:
    """Clients cut emoji in half; the request must neither crash nor lose the half."""
    verdict = redacted(b'{"messages":[{"role":"user","content":"ana@x.com \\ud83d"}]}')

    assert b'{"messages":[{"role":"user","content":"[EMAIL-1] \\ud83d"}]}' == verdict.body


def test_arguments_are_read_as_json_and_keep_their_form() -> None:
    """Labels, escapes and numbers count in there; spaces, order and repeated keys stay."""
    arguments = '{ "to":"ana@x.com" , "password": "p\\"w\\n1", "cpf": 52998224725, "to": "\\u00e9 ana\\u0040x.com" }'
    body = dumped({"messages": [{"role": "assistant", "tool_calls": [
        {"id": "call_a1b2c3d4e5", "type": "function", "function": {"name": "mail", "arguments": arguments}}]}]})  # fmt: skip
    verdict = redacted(body)
    call = verdict.document["messages"][0]["tool_calls"][0]

    assert (
        '{ "to":"[EMAIL-1]" , "password": "[PASSWORD-1]", "cpf": "[CPF-1]", "to": "\\u00e9 [EMAIL-1]" }'
        == call["function"]["arguments"]
    )
    assert 'p"w\n1' == verdict.vault.restore_text("[PASSWORD-1]")


def test_nested_json_is_replaced_in_place_at_every_level() -> None:
    """Agents pass JSON in JSON in JSON."""
    level3 = json.dumps({"mail": "ana@x.com", "n": 52998224725})
    level2 = json.dumps({"inner": level3})
    level1 = json.dumps({"inner": level2})
    verdict = redacted(dumped({"messages": [{"role": "tool", "content": level1}]}))
    read = json.loads(json.loads(json.loads(contents(verdict)[0])["inner"])["inner"])

    assert {"mail": "[EMAIL-1]", "n": "[CPF-1]"} == read


def test_masked_value_inside_json_text_keeps_the_json_valid() -> None:
    """A mask keeps punctuation, quotes included."""
    arguments = json.dumps({"password": 'a"b\\c\nd'})
    verdict = redacted(
        dumped({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]}]}),
        default=Action.MASK,
    )
    made = verdict.document["messages"][0]["tool_calls"][0]["function"]["arguments"]

    assert {"password": '*"*\\*\n*'} == json.loads(made)


def test_keys_numbers_names_and_every_free_field_are_read() -> None:
    """Everything JSON is scanned wherever strings are."""
    verdict = redacted(dumped({
        "user": "ana@x.com", "metadata": {"bob@y.org": "529.982.247-25", "cpf": 52998224725}, "mine": {"n": 11122233344},
        "tools": [{"type": "function", "function": {"name": "f", "description": "ask eve@x.com"}}],
        "messages": [{"role": "user", "name": "ana@x.com", "content": [{"type": "text", "text": "zoe@z.net"}]}],
        "stop": ["joe@z.net"], "seed": 52998224725,
    }))  # fmt: skip
    document = verdict.document

    assert "[EMAIL-1]" == document["user"] == document["messages"][0]["name"]
    assert {"[EMAIL-5]": "[CPF-1]", "cpf": "[CPF-1b]"} == document["metadata"]
    assert {"n": "[CPF-2]"} == document["mine"]
    assert ("ask [EMAIL-2]", "[EMAIL-3]", "[EMAIL-4]") == (
        document["tools"][0]["function"]["description"],
        document["messages"][0]["content"][0]["text"],
        document["stop"][0],
    )
    assert 52998224725 == document["seed"]


def test_two_keys_that_would_become_one_keep_apart() -> None:
    """Replacing must not lose a member."""
    verdict = redacted(dumped({"metadata": {"ana@x.com": 1, "bob@y.org": 2}}), default=Action.REDACT)

    assert {"[EMAIL_REDACTED]": 1, "[EMAIL_REDACTED] (2)": 2} == verdict.document["metadata"]


def test_model_roles_and_provider_ids_are_not_rewritten() -> None:
    """They are names of the protocol; a rewritten id is a 404."""
    body = dumped({
        "model": "ft:ana@x.com", "previous_response_id": "resp_52998224725a",
        "input": [{"type": "message", "role": "user", "content": "ana@x.com", "id": "msg_52998224725abc"}],
    })  # fmt: skip
    document = redacted(body, Dialect.RESPONSES).document

    assert ("ft:ana@x.com", "resp_52998224725a") == (document["model"], document["previous_response_id"])
    assert ("user", "msg_52998224725abc") == tuple(document["input"][0][name] for name in ("role", "id"))
    assert document["input"][0]["content"].startswith("[EMAIL-")


def test_value_split_over_adjacent_parts_is_found() -> None:
    """The model reads the parts as one text."""
    parts = [{"type": "text", "text": text} for text in ("card 4111 1111", " 1111 1111 and ana@", "x.com, bob@y.org")]
    verdict = redacted(chat(parts))

    assert ["card [CREDIT-CARD-1]", " and [EMAIL-1]", ", [EMAIL-2]"] == [part["text"] for part in contents(verdict)[0]]
    assert {"EMAIL": 2, "CREDIT_CARD": 1} == verdict.findings
    assert "4111 1111 1111 1111" == verdict.vault.restore_text("[CREDIT-CARD-1]")


def test_embeddings_get_stable_tags_and_nothing_to_restore() -> None:
    """A number would move the vector; a vector has no way back."""
    body = dumped({"model": "e", "input": ["ana@x.com", "bob@y.org", "529.982.247-25"]})
    verdict = redacted(body, Dialect.EMBEDDINGS)

    assert ["[EMAIL]", "[EMAIL]", "[CPF]"] == verdict.document["input"]
    assert verdict.vault.is_empty


def test_embedding_of_token_numbers_is_left_alone() -> None:
    """Token arrays are not text."""
    body = dumped({"model": "e", "input": [[11122233344, 5], [7]]})

    assert isinstance(redactor().redact(body, Dialect.EMBEDDINGS), Untouched)


def test_images_are_counted_and_refused_where_policy_asks() -> None:
    """What cannot be read is at least known."""
    body = chat([{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": PNG}}])
    verdict = redactor().redact(body, Dialect.CHAT)
    assert isinstance(verdict, Untouched)
    assert len(PNG) == verdict.unscanned_bytes

    refused = redactor(unscanned=Unscanned.REFUSE).redact(body, Dialect.CHAT)
    assert isinstance(refused, Blocked)
    assert (("UNSCANNED",), "messages[0].content[1]") == (refused.kinds, refused.where[0])

    remote = chat([{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}])
    assert isinstance(redactor(unscanned=Unscanned.REFUSE).redact(remote, Dialect.CHAT), Blocked)
    assert isinstance(redactor(unscanned=Unscanned.REFUSE).redact(chat("an image?"), Dialect.CHAT), Untouched)


def test_text_around_a_data_url_is_read() -> None:
    """The bytes are skipped, the words are not."""
    verdict = redacted(chat(f"ana@x.com ![x]({PNG}) bob@y.org"))

    assert [f"[EMAIL-1] ![x]({PNG}) [EMAIL-2]"] == contents(verdict)
    assert len(PNG) == verdict.unscanned_bytes


def test_broken_detector_is_a_fault_without_the_value() -> None:
    """Fail closed, and quietly."""
    with pytest.raises(RedactionFault) as caught:
        redactor(detector=Broken()).redact(chat("ana@example.com"), Dialect.CHAT)

    assert "ana" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_broken_detector_stops_nobody_where_policy_only_observes() -> None:
    """Nothing would have been changed, so there is nothing to protect by refusing."""
    body = chat("ana@example.com")

    assert Untouched(unscanned_bytes=len(body)) == redactor(detector=Broken(), observe_only=True).redact(
        body, Dialect.CHAT
    )


def test_parsed_document_spares_the_second_parse() -> None:
    """The relay has read the model's name already."""
    body = chat("ana@x.com")
    verdict = redactor().redact(body, Dialect.CHAT, json.loads(body))

    assert isinstance(verdict, Redacted)
    assert ["[EMAIL-1]"] == contents(verdict)


def test_two_requests_at_once_do_not_see_each_other() -> None:
    """The same tag stands for another value in the next request."""
    shared = redactor()
    answers: dict[int, str] = {}

    def work(at: int) -> None:
        for _ in range(50):
            verdict = shared.redact(chat(f"user{at}@x.com"), Dialect.CHAT)
            assert isinstance(verdict, Redacted)
            answers[at] = verdict.vault.restore_text("[EMAIL-1]")

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {at: f"user{at}@x.com" for at in range(4)} == answers


def test_any_json_document_is_walked() -> None:
    """A body need not be an object."""
    assert b'"[EMAIL-1]"' == redacted(b'"ana@x.com"').body
    assert b'[["[EMAIL-1]"]]' == redacted(b'[["ana@x.com"]]').body


def test_inactive_plan_reads_nothing() -> None:
    """Redaction that is off costs nothing and fails nowhere."""
    body = dumped({"a": "ana@x.com", "b": PNG})

    assert Untouched() == redactor(default=Action.OFF, detector=Broken()).redact(body, Dialect.CHAT)


def test_parts_of_different_kinds_are_not_joined() -> None:
    """An image between two texts keeps them apart, and so do two messages."""
    parts = [{"type": "text", "text": "4111 1111"}, {"type": "image_url", "image_url": {"url": PNG}},
             {"type": "text", "text": " 1111 1111"}]  # fmt: skip

    assert isinstance(redactor().redact(chat(parts), Dialect.CHAT), Untouched)
    assert isinstance(redactor().redact(chat("4111 1111", " 1111 1111"), Dialect.CHAT), Untouched)


def test_long_parts_are_joined_at_their_ends_only() -> None:
    """The neighbourhood of a joint is enough, whatever the parts' size."""
    long = "word " * 200
    parts = [{"type": "text", "text": text} for text in (long + "ana@", "x.com " + long + "4111 1111", " 1111 1111")]
    verdict = redacted(chat(parts))

    assert [long + "[EMAIL-1]", " " + long + "[CREDIT-CARD-1]", ""] == [part["text"] for part in contents(verdict)[0]]


@pytest.mark.parametrize("place", ['"seed":%s', '"metadata":{"a":[{"n":%s}]}', '"logit_bias":{"50256":%s}'])
def test_long_number_keeps_its_digits_however_many_requests_with_values_came_before(place: str) -> None:
    """A parser that makes a float of it is asked first; what it cannot hold must not leave shortened."""
    number = "123456789012345678901234567890"
    body = chat("I am ana@x.com.")[:-1] + b"," + (place % number).encode() + b"}"
    asked = redactor()

    for _ in range(5):
        verdict = asked.redact(body, Dialect.CHAT, orjson.loads(body))

        assert isinstance(verdict, Redacted)
        assert (place % number).encode() in verdict.body
        assert b"[EMAIL-1]" in verdict.body


PEM = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7abcd\n-----END PRIVATE KEY-----"
)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"key": PEM})[:-1],
        "\t" + json.dumps({"key": PEM, "cut": "here"})[:-5],
        json.dumps({"key": PEM, "half": "\ud83d"}),
        json.dumps({"pad": "x" * 70_000, "key": PEM}),
        json.dumps({"inner": json.dumps({"key": PEM})[:-1]}),
        json.dumps([{"key": PEM}]) + ",",
    ],
    ids=["cut", "cut after a tab", "half a surrogate pair", "too long", "cut within", "more behind"],
)
def test_value_of_json_that_is_not_taken_apart_is_kept_as_what_it_says(text: str) -> None:
    """It comes back as the same key wherever the model puts it: with line breaks in prose, escaped in JSON."""
    verdict = redactor(detector=build_detector()).redact(chat(text), Dialect.CHAT)
    assert isinstance(verdict, Redacted)
    back = AnswerRestorer(verdict.vault, Dialect.CHAT).whole(verdict.body)

    assert text == json.loads(back)["messages"][0]["content"]
    assert [PEM] == [value for _, value, _ in verdict.vault.rows()]


def test_value_of_arguments_that_are_one_string_is_kept_as_what_it_says() -> None:
    """Arguments are JSON by contract, and a string is JSON."""
    call = {"type": "function", "function": {"name": "f", "arguments": json.dumps(f"the key: {PEM}")}}
    body = dumped({"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]})
    verdict = redactor(detector=build_detector()).redact(body, Dialect.CHAT)
    assert isinstance(verdict, Redacted)
    back = AnswerRestorer(verdict.vault, Dialect.CHAT).whole(verdict.body)

    assert json.loads(body) == json.loads(back)
    assert [PEM] == [value for _, value, _ in verdict.vault.rows()]
