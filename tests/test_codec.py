"""Encoding is strict and names the place of an error; decoding is lenient and loses nothing."""

import functools
import json
import sys
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import lib


def sent(value):
    return json.loads(lib.encode(value))


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    name: str
    points: list[Point]
    centre: Point | None = None
    tag: str = "none"
    sides: int | None = 3


@dataclass
class Sum:
    parts: list[int]
    total: int = field(init=False, default=0)

    def __post_init__(self):
        self.total = sum(self.parts)


@dataclass
class Order:
    dish: str
    extra: Any = None  # not a mapping, unlike `extra` in the library's own classes


@dataclass
class Tree:
    value: int
    branches: "list[Tree]" = field(default_factory=list)


# Writing


def test_none_fields_are_omitted_and_false_or_empty_ones_are_written():
    request = lib.CreateChatCompletionRequest(
        model="", messages=[], temperature=0, stream=False, stop="", tools=[]
    )
    assert sent(request) == {
        "model": "", "messages": [], "temperature": 0, "stream": False, "stop": "", "tools": [],
    }  # fmt: skip


def test_a_set_field_overrides_extra_and_extra_fills_unset_fields():
    written = lib.encode(Point(1, extra={"x": 2, "y": 3, "z": None}))
    assert written == b'{"x":1,"y":3,"z":null}'
    assert sent(
        lib.CreateChatCompletionRequest(
            model="m", messages=[], temperature=0, extra={"model": "n", "temperature": 1, "n": 2}
        )
    ) == {"model": "m", "messages": [], "temperature": 0, "n": 2}


@pytest.mark.parametrize("extra", ["cheese", ["cheese", "ham"], 0, False])
def test_an_extra_field_that_is_not_a_mapping_is_written_like_any_other(extra):
    assert sent(Order("pizza", extra)) == {"dish": "pizza", "extra": extra}
    assert sent(Order("pizza")) == {"dish": "pizza"}


def test_none_values_in_a_mapping_are_written_as_null():
    assert sent({"temperature": None}) == {"temperature": None}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "red"),
        (lib.ChatRole.USER, "user"),
        ((1, 2), [1, 2]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        ({50256: -100}, {"50256": -100}),
        ("\ud83d", "\ud83d"),
    ],
    ids=repr,
)
def test_enums_tuples_and_mappings_are_written_as_json(value, expected):
    assert sent(value) == expected


def test_the_body_is_ascii():
    assert lib.encode({"a": "é👋\u2028"}) == b'{"a":"\\u00e9\\ud83d\\udc4b\\u2028"}'


def circle():
    value: list = []
    value.append(value)
    return value


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "$.extra_key: Out of range float"),
        (float("-inf"), "$.extra_key: Out of range float"),
        (b"bytes", "$.extra_key: bytes has no JSON form"),
        ({"a": [1, {2}]}, "$.extra_key.a[1]: set has no JSON form"),
        ([Point(1, y=object())], "$.extra_key[0].y: object has no JSON form"),
        (deque([1]), "$.extra_key: deque has no JSON form"),
        (Point, "$.extra_key: type has no JSON form"),
        ({(1, 2): 3}, "$.extra_key: keys must be str, int, float, bool or None, not tuple"),
        (circle(), "nested too deeply, or inside itself"),
        (nested(100_000), "nested too deeply, or inside itself"),
    ],
    ids=["nan", "inf", "bytes", "set", "object", "deque", "class", "key", "circle", "deep"],
)
def test_a_value_without_a_json_form_is_rejected_with_its_path(value, words):
    with pytest.raises(lib.ConfigError) as caught:
        lib.encode({"extra_key": value})
    assert words in str(caught.value)


# Reading


def test_unknown_keys_are_kept_at_every_level():
    data = {
        "choices": [
            {"index": 0, "seen": 1, "message": {"role": "assistant", "content": "a", "mood": "ok",
             "tool_calls": [{"id": "1", "sig": 2, "function": {"name": "f", "x": [3]}}]}},
        ],
        "provider": "p",
        "usage": {"total_tokens": 1, "cost": 0.1},
        "extra": {"extra": 1},
    }  # fmt: skip
    response = lib.CreateChatCompletionResponse.from_dict(data)
    assert response.extra == {"provider": "p", "extra": {"extra": 1}}
    assert response.choices[0].message.extra == {"mood": "ok"}
    assert response.to_dict()["choices"][0]["message"].pop("content") == "a"
    assert response.to_dict() == data


def test_values_of_a_wrong_type_are_kept_unchanged():
    response = lib.CreateChatCompletionResponse.from_dict(
        {"choices": [], "created": "soon", "id": 7, "model": None}
    )
    assert (response.created, response.id, response.model) == ("soon", 7, None)


def test_reading_does_not_change_what_is_read():
    data = {"choices": [{"index": 0, "delta": None, "x": 1}], "usage": None}
    before = json.dumps(data)
    lib.CreateChatCompletionChunk.from_dict(data)
    assert json.dumps(data) == before


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ([], "$: expected object, got list"),
        ({}, "$.choices: missing"),
        ({"choices": None}, "$.choices: expected list, got null"),
        ({"choices": {}}, "$.choices: expected list, got object"),
        ({"choices": [None]}, "$.choices[0]: expected object, got null"),
        ({"choices": [{}, 5]}, "$.choices[1]: expected object, got number"),
        ({"choices": [{"message": []}]}, "$.choices[0].message: expected object, got list"),
        ({"choices": [{"message": "Hi"}]}, "$.choices[0].message: expected object, got string"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_or_mistyped_required_value_is_an_error_with_its_path(data, place):
    with pytest.raises(lib.DeserializeError) as caught:
        lib.decode(lib.CreateChatCompletionResponse, data)
    assert place in str(caught.value)
    assert caught.value.path == place.partition(": ")[0]


def test_a_mistyped_optional_value_is_kept_in_extra():
    data = {"choices": [{"logprobs": "none", "message": {"tool_calls": [1], "content": [["a"]]}}],
            "usage": 5}  # fmt: skip
    response = lib.CreateChatCompletionResponse.from_dict(data)
    assert response.usage is None
    assert response.extra == {"usage": 5}
    assert response.choices[0].extra == {"logprobs": "none"}
    assert response.choices[0].message.extra == {"tool_calls": [1], "content": [["a"]]}
    assert response.text == ""


def test_null_becomes_the_default_where_the_type_does_not_allow_none():
    choice = lib.ChatCompletionChunkChoice.from_dict({"delta": None})
    assert choice.delta == lib.ChatCompletionDelta()
    assert lib.CreateChatCompletionChunk.from_dict({"choices": None}).choices == []


def test_a_custom_dataclass_is_decoded_through_its_constructor():
    shape = lib.decode(Shape, {"name": "s", "points": [{"x": 1, "z": 2}], "unknown": 1})
    assert shape == Shape("s", [Point(1, extra={"z": 2})])
    assert lib.decode(Shape, {"name": "s", "points": [], "sides": None}) == Shape("s", [])
    assert lib.decode(Shape, {"name": "s", "points": [], "tag": None}).tag == "none"


def test_a_field_that_the_constructor_does_not_take_is_neither_read_nor_written():
    assert lib.decode(Sum, {"parts": [1, 2], "total": 7}) == Sum([1, 2])
    assert sent(Sum([1, 2])) == {"parts": [1, 2]}


def test_a_recursive_class_is_decoded():
    tree = lib.decode(Tree, {"value": 1, "branches": [{"value": 2, "branches": [{"value": 3}]}]})
    assert tree.branches[0].branches[0].value == 3


def test_the_error_for_a_missing_key_names_its_path_and_class():
    with pytest.raises(lib.DeserializeError, match=r"\$\.points\[1\]\.x: missing, and Point"):
        lib.decode(Shape, {"name": "s", "points": [{"x": 1}, {}]})


def test_decoding_into_dict_returns_the_json_unchanged():
    data = {"a": [1]}
    assert lib.decode(dict, data) == data
    assert lib.decode(dict[str, Any], data) == data


@pytest.mark.parametrize(
    ("value", "found"),
    [([1], "list"), ("text", "string"), (5, "number"), (True, "boolean"), (None, "null")],
    ids=repr,
)
def test_decoding_a_non_object_into_dict_is_an_error(value, found):
    with pytest.raises(lib.DeserializeError, match=rf"^\$: expected object, got {found}$"):
        lib.decode(dict, value)


@pytest.mark.parametrize("into", [str, int, list, Point(1), "Point"])
def test_an_unsupported_target_type_is_rejected(into):
    with pytest.raises(lib.ConfigError, match="cannot decode into"):
        lib.decoder(into)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
keys = st.sampled_from(
    ["choices", "index", "message", "delta", "content", "role", "tool_calls", "function", "usage",
     "logprobs", "extra", "id", "error", "name", "arguments", "text", "x_groq", "x"]
)  # fmt: skip
shaped = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=20,
)


MODELS = [
    value
    for value in vars(lib.modules[0]).values()
    if isinstance(value, type) and is_dataclass(value) and issubclass(value, lib.JSONObject)
]
LARGE_MODELS = (  # which contain the others
    lib.CreateChatCompletionRequest,
    lib.CreateChatCompletionResponse,
    lib.CreateChatCompletionChunk,
)
OF_ANOTHER_PLACE = {"usage", "x_groq"}  # may hold the usage of the response, and is then moved


def values_of(hint):
    """Values of a field's type, or of any type where it does not say which."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if is_dataclass(kind):
        return st.deferred(lambda: instances(kind))
    if kind in (Union, UnionType):
        has_class = any(map(is_dataclass, arguments))  # decoding gives an instance, not a mapping
        kinds = [arg for arg in arguments if not (has_class and get_origin(arg) is Mapping)]
        return st.one_of(*map(values_of, kinds))
    if kind in (list, Sequence):
        return st.lists(values_of(arguments[0]), max_size=2)
    if kind in (dict, Mapping):
        return st.dictionaries(st.text(max_size=3), json_values, max_size=2)
    plain = {str: st.text(max_size=5), int: st.integers(), float: st.floats(allow_nan=False),
             bool: st.booleans(), type(None): st.none(), lib.ChatRole: st.sampled_from(lib.ChatRole)}  # fmt: skip
    return plain.get(kind, json_values)


@functools.cache
def instances(cls):
    """Instances of a model, with any keys in their extra but the names of its own fields."""
    hints = get_type_hints(cls)
    given = {field.name: values_of(hints[field.name]) for field in fields(cls)}
    if cls is lib.ChatMessage:
        given["role"] = st.sampled_from(lib.ChatRole)
    own = {*given, *OF_ANOTHER_PLACE}
    foreign = (st.text(max_size=5) | keys).filter(lambda key: key not in own)
    given["extra"] = st.dictionaries(foreign, json_values, max_size=3)
    return st.builds(cls, **given)


@pytest.mark.parametrize(
    "cls",
    [cls if cls in LARGE_MODELS else pytest.param(cls, marks=pytest.mark.gate) for cls in MODELS],
    ids=lambda cls: cls.__name__,
)
@settings(max_examples=settings().max_examples // 3, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_model_that_was_written_reads_as_the_same(cls, data):
    it = data.draw(instances(cls))
    assert cls.from_dict(it.to_dict()) == it


@given(st.dictionaries(keys, shaped, max_size=6))
def test_a_chunk_survives_a_round_trip_and_keeps_all_top_level_keys(data):
    chunk = lib.CreateChatCompletionChunk.from_dict
    try:
        first = chunk(data)
    except lib.DeserializeError:
        return
    assert chunk(first.to_dict()) == first
    for key in data.keys() - {"choices"}:
        if data[key] is not None:
            assert key in first.to_dict()


@given(shaped)
def test_any_json_reads_or_is_a_deserialize_error(value):
    for cls in (lib.CreateChatCompletionResponse, lib.CreateChatCompletionChunk, lib.ChatMessage):
        try:
            read = lib.decode(cls, value)
        except lib.DeserializeError as error:
            read = error
        assert isinstance(read, cls) or read.path.startswith("$")


def test_an_error_deep_in_a_recursive_class_is_found_without_exponential_work():
    data: dict = {"branches": []}
    for _ in range(60):
        data = {"value": 1, "branches": [data]}
    with pytest.raises(lib.DeserializeError, match="value: missing") as caught:
        lib.decode(Tree, data)
    assert caught.value.path.count("branches[0]") == 60


def test_excessive_nesting_is_an_error_in_decoding_and_encoding():
    token: Any = {"token": "a"}
    tree: Any = {"value": 1}
    for _ in range(20_000):
        token = {"token": "a", "top_logprobs": [token]}
        tree = {"value": 1, "branches": [tree]}
    with pytest.raises(lib.DeserializeError, match="nested too deeply"):
        lib.ChatCompletionChoice.from_dict({"logprobs": {"content": [token]}})
    with pytest.raises(lib.DeserializeError, match="nested too deeply"):
        lib.decode(Tree, tree)
    with pytest.raises(lib.ConfigError, match="nested too deeply"):
        lib.encode(tree)


def test_unknown_keys_of_any_depth_are_kept():
    deep = nested(100_000)
    for key in ("usage", "x_groq", "metadata"):
        read = lib.CreateChatCompletionResponse.from_dict({"choices": [], key: deep})
        assert (read.metadata or read.extra[key]) is deep
        with pytest.raises(lib.ConfigError, match="nested too deeply"):
            read.to_dict()


@dataclass(frozen=True)
class Frozen(lib.JSONObject):
    name: str
    shouted: str = field(init=False, default="")

    def __post_init__(self):
        object.__setattr__(self, "shouted", self.name.upper())


def test_a_custom_class_with_post_init_is_made_by_its_constructor():
    found = Frozen.from_dict({"name": "ann"})
    assert (found.name, found.shouted) == ("ann", "ANN")


def test_unresolvable_type_hints_are_a_config_error():
    @dataclass
    class Lost:
        where: "Nowhere"  # noqa: F821

    @dataclass
    class Tree:
        name: str
        branches: "list[Tree] | None" = None

    with pytest.raises(lib.ConfigError, match=r"Lost.*Nowhere"):
        lib.decode(Lost, {})
    assert lib.decode(Tree, {"name": "a", "branches": [{"name": "b"}]}).branches == [Tree("b")]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with Python 3.12")
def test_the_hints_of_a_generic_class_may_name_its_type_parameters():
    names = {"dataclass": dataclass}
    exec('@dataclass\nclass Box[T]:\n    size: int\n    inner: "Box[T] | None" = None', names)
    assert lib.decode(names["Box"], {"size": 1}) == names["Box"](1)
