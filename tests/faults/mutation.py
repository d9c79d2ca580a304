"""Mutations of files: of their bytes, of the values of a document, of the fields of an ONNX model.

Each takes a `random.Random`, of hypothesis or of a seed, and returns something new.
"""

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = [
    "ODD_NUMBERS", "ODD_TEXTS", "ODD_WORDS", "as_json", "as_toml", "mutated_bytes", "mutated_message", "mutated_png",
    "mutated_text", "mutated_value",
]  # fmt: skip

ODD_NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 127, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53, 2**63 - 1, -(2**63),
    2**63, 2**64, 10**30, 10**400, 0.0, -0.0, 0.5, 1e-9, 1e-320, 1e9, 1e38, 1e308, -1e308, math.nan, math.inf,
    -math.inf, True, False,
)  # fmt: skip
ODD_TEXTS: tuple[str, ...] = (
    "", " ", "\0", "\n", "a\nb", "\x1b[31m", "\ud800", "\u202e", "é" * 300, "x" * 5000, "/", "..", "../..", ".", "~",
    "~nobody", "/dev/zero", "/dev/stdin", "/proc/self/mem", "nan", "inf", "-1", "1e400", "None", "null", "{}", "[]",
    "{0}", "%s", "a" * 300 + ".png", "cpu", "ms", "MB", "fp32", "auto",
)  # fmt: skip
ODD_WORDS: tuple[bytes, ...] = (
    *(text.encode("utf-8", "surrogatepass") for text in ODD_TEXTS if len(text) < 400), b"\xff", b"\xef\xbb\xbf",
    b"\r", b"'", b'"', b"[", b"]", b"{", b"}", b"=", b":", b",", b";", b"&", b"*", b"#", b"!!python/object:os.system",
    b"&a [*a]", b"<", b">", b"&lol;", b"<!DOCTYPE a [<!ENTITY a 'b'>]>", b"nan", b"1e999", b"-1e999", b"9" * 400,
    b"1979-05-27T07:32:00Z", b"[" * 3000, b"\xf4\x90\x80\x80", b"NaN", b"Infinity", b"0x10", b"1_0", b"\t", b"- ",
)  # fmt: skip
_LENGTHS = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_MOST_EDITS = 4


def mutated_bytes(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes with some flipped, cut, repeated, inserted, or with other numbers where lengths may stand."""
    found = bytearray(data)
    for _ in range(random.randint(1, _MOST_EDITS)):
        place = _place(found, random)
        edit = random.randrange(9)
        if edit == 0 and found:
            found[place % len(found)] ^= 1 << random.randrange(8)
        elif edit == 1 and found:
            found[place % len(found)] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif edit == 2:
            del found[place:]
        elif edit == 3:
            del found[place : place + random.choice((1, 2, 4, 16, 200))]
        elif edit == 4:
            found[place:place] = random.choice(ODD_WORDS)
        elif edit == 5:
            found[place:place] = found[place : place + random.choice((1, 8, 64, 1000))]
        elif edit == 6 and others:
            other = random.choice(others)
            start = random.randrange(len(other) + 1)
            found[place : place + random.choice((0, 4, 64))] = other[start : start + random.choice((4, 64, 1000))]
        elif edit == 7:
            found[place : place + random.choice((1, 2, 8))] = random.randbytes(random.choice((1, 2, 8)))
        else:
            found = _with_length(found, place, random)
    return bytes(found)


def _place(data: bytearray, random: Random) -> int:
    """Return a place in the data, often where its header or its end is."""
    if not data:
        return 0
    near = min(len(data), random.choice((8, 64, 512)))
    return random.choice((random.randrange(len(data)), random.randrange(near), len(data) - 1 - random.randrange(near)))


def _with_length(data: bytearray, place: int, random: Random) -> bytearray:
    length = random.choice((*_LENGTHS, len(data), len(data) - place, random.randrange(1 << 20)))
    form = random.choice(("<H", ">H", "<I", ">I", "<Q", ">Q", "varint"))
    if form == "varint":
        text = bytearray()
        while True:
            text.append((length & 0x7F) | (0x80 if length > 0x7F else 0))
            length >>= 7
            if not length:
                break
        new = bytes(text)
    else:
        new = struct.pack(form, length % (1 << (8 * struct.calcsize(form))))
    data[place : place + len(new)] = new
    return data


def mutated_text(text: str, random: Random) -> bytes:
    """Return a text of numbers and words with some of them replaced, or with its bytes mutated."""
    if random.random() < 0.3:
        return mutated_bytes(text.encode(), random)
    words = text.replace("\n", " \n ").split(" ")
    for _ in range(random.randint(1, _MOST_EDITS)):
        place = random.randrange(len(words))
        edit = random.randrange(4)
        if edit == 0:
            words[place] = str(random.choice(ODD_NUMBERS))
        elif edit == 1:
            words[place] = random.choice(ODD_TEXTS)
        elif edit == 2:
            words[place : place + 1] = [words[place]] * random.choice((0, 2, 3, 50))
            words = words or [""]
        else:
            other = random.randrange(len(words))
            words[place], words[other] = words[other], words[place]
    return " ".join(words).encode("utf-8", "surrogatepass")


def mutated_png(data: bytes, random: Random) -> bytes:
    """Return a PNG with another chunk, its checksum right."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    index = random.randrange(len(chunks))
    kind, content = chunks[index]
    if random.random() < 0.5 and kind == b"IHDR":
        sizes = [random.choice((0, 1, 3, 1000, 30_000, 2**31 - 1)) for _ in range(2)]
        content = struct.pack(">II", *sizes) + content[8:]
    else:
        content = mutated_bytes(content, random)
    chunks[index] = (kind, content)
    if random.random() < 0.2:
        chunks.insert(index, random.choice(chunks))
    return data[:8] + b"".join(
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in chunks
    )


def mutated_value(value: Any, random: Random) -> Any:
    """Return a document of dictionaries, lists and plain values in which some are of another type or size."""
    for _ in range(random.randint(1, 3)):
        value = _replaced(value, random)
    return value


def _replaced(value: Any, random: Random) -> Any:
    places = list(_places(value))
    if not places:
        return _odd(value, random)
    path = random.choice(places)

    def put(here: Any, rest: tuple[Any, ...]) -> Any:
        if not rest:
            return _odd(here, random)
        copy = dict(here) if isinstance(here, dict) else list(here)
        copy[rest[0]] = put(here[rest[0]], rest[1:])
        return copy

    edit = random.randrange(4)
    if edit:
        return put(value, path)

    def change(here: Any, rest: tuple[Any, ...]) -> Any:
        """Remove, repeat or rename the entry that `rest` leads to."""
        copy = dict(here) if isinstance(here, dict) else list(here)
        if len(rest) > 1:
            copy[rest[0]] = change(here[rest[0]], rest[1:])
        elif isinstance(copy, dict):
            content = copy.pop(rest[0])
            if random.random() < 0.5:
                copy[random.choice((*ODD_TEXTS[:12], str(rest[0]) + "x", *map(str, here)))] = content
        else:
            copy[rest[0] : rest[0] + 1] = [copy[rest[0]]] * random.choice((0, 2, 100))
        return copy

    return change(value, path)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list | tuple):
        for key, content in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from _places(content, (*path, key))


def _odd(value: Any, random: Random) -> Any:
    made: tuple[Callable[[], Any], ...] = (
        lambda: random.choice(ODD_NUMBERS),
        lambda: random.choice(ODD_TEXTS),
        lambda: None,
        list,
        dict,
        lambda: [value],
        lambda: {"value": value},
        lambda: [random.choice(ODD_NUMBERS)] * random.choice((1, 2, 4, 1000)),
        lambda: _nested(random.choice((5, 400, 5000))),
        lambda: str(value),
        lambda: -value if isinstance(value, int | float) else value,
        lambda: value * 1000 if isinstance(value, str | list) and len(value) < 1000 else value,
        lambda: value + random.choice(ODD_TEXTS) if isinstance(value, str) else value,
    )
    return random.choice(made)()


def _nested(depth: int) -> Any:
    return "[" * depth + "]" * depth  # as text: `as_json` and `as_toml` write it as it is


def _is_nested(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("[[[[[")


def as_json(value: Any) -> bytes:
    """Return a document as JSON, with numbers that JSON doesn't know and with arrays in arrays."""
    if isinstance(value, dict):
        return b"{%s}" % b",".join(json.dumps(str(key)).encode() + b":" + as_json(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return b"[%s]" % b",".join(map(as_json, value))
    return value.encode("utf-8", "replace") if _is_nested(value) else _number(value) or json.dumps(value).encode()


def _number(value: Any) -> bytes | None:
    return hex(value).encode() if isinstance(value, int) and abs(value) > 10**300 else None


def as_toml(value: Any) -> bytes:
    """Return a table as TOML, a value or an inline table for each key; None is left out."""
    lines = [b"%s = %s" % (_toml_key(key), _toml(each)) for key, each in value.items() if each is not None]
    return b"\n".join(lines) + b"\n"


def _toml_key(key: Any) -> bytes:
    return json.dumps(str(key)).encode()


def _toml(value: Any) -> bytes:
    if isinstance(value, dict):
        inner = [b"%s = %s" % (_toml_key(key), _toml(each)) for key, each in value.items() if each is not None]
        return b"{%s}" % b", ".join(inner)
    if isinstance(value, list | tuple):
        return b"[%s]" % b", ".join(_toml(each) for each in value if each is not None)
    if isinstance(value, float):
        return (str(value) if math.isfinite(value) else "nan" if math.isnan(value) else f"{value}").encode()
    if _is_nested(value):
        return bytes(value.encode("utf-8", "replace"))
    return _number(value) or json.dumps(value).encode("utf-8", "replace")


_INTS = {
    FieldDescriptor.CPPTYPE_INT32: 31,
    FieldDescriptor.CPPTYPE_INT64: 63,
    FieldDescriptor.CPPTYPE_UINT32: 32,
    FieldDescriptor.CPPTYPE_UINT64: 64,
}


def mutated_message(message: Message, random: Random) -> None:
    """Change some fields of a protobuf message, in place, wherever they are in it."""
    for _ in range(random.randint(1, 3)):
        inner = list(_messages(message))
        # a graph holds few messages of most kinds and many of one: choose the kind first
        kinds = sorted({each.DESCRIPTOR.name for each in inner})
        kind = random.choice(kinds)
        chosen = random.choice([each for each in inner if each.DESCRIPTOR.name == kind])
        _change_field(chosen, random, list(_names(message)))


def _messages(message: Message) -> Iterator[Message]:
    waiting = [message]
    while waiting:
        here = waiting.pop()
        yield here
        for field, content in here.ListFields():
            if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                waiting += list(content) if field.is_repeated else [content]


def _names(message: Message) -> Iterator[str]:
    for each in _messages(message):
        for field, content in each.ListFields():
            if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_STRING:
                yield from content if field.is_repeated else [content]


def _change_field(message: Message, random: Random, names: list[str]) -> None:
    used = [field for field, _ in message.ListFields()]
    field = random.choice(used if used and random.random() < 0.8 else list(message.DESCRIPTOR.fields))
    repeated = field.is_repeated
    content = getattr(message, field.name)
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        if repeated:
            _change_list(content, random)
        elif random.random() < 0.5:
            message.ClearField(field.name)
        else:
            content.SetInParent()
        return
    if random.random() < 0.15:
        message.ClearField(field.name)
    elif repeated:
        items = list(content)
        edit = random.randrange(5)
        if edit == 0 or not items:
            items.insert(random.randrange(len(items) + 1), _odd_scalar(field, None, random, names))
        elif edit == 1:
            del items[random.randrange(len(items))]
        elif edit == 2:
            items += items[: random.choice((1, 100))]
        else:
            place = random.randrange(len(items))
            items[place] = _odd_scalar(field, items[place], random, names)
        del content[:]
        content.extend(items)
    else:
        setattr(message, field.name, _odd_scalar(field, content, random, names))


def _change_list(content: Any, random: Random) -> None:
    edit = random.randrange(4)
    if not len(content) or edit == 0:
        content.add()
    elif edit == 1:
        del content[random.randrange(len(content))]
    elif edit == 2:
        content.add().CopyFrom(random.choice(content))
    else:
        one, other = random.randrange(len(content)), random.randrange(len(content))
        copies = [type(content[one])() for _ in range(2)]
        copies[0].CopyFrom(content[one])
        copies[1].CopyFrom(content[other])
        content[one].CopyFrom(copies[1])
        content[other].CopyFrom(copies[0])


def _odd_scalar(field: FieldDescriptor, now: Any, random: Random, names: list[str]) -> Any:
    if field.cpp_type in _INTS:
        bits = _INTS[field.cpp_type]
        signed = bits in (31, 63)
        numbers = [0, 1, 2, 3, 5, 16, 4096, 40_000, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1]
        numbers += [-1, -2, -3, -(2**31), -(2**63)] if signed else []
        if isinstance(now, int):
            numbers += [now + 1, now - 1, 2 * now, -now]
        low, high = (-(1 << bits), (1 << bits) - 1) if signed else (0, (1 << bits) - 1)
        return random.choice([number for number in numbers if low <= number <= high])
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return random.choice([*field.enum_type.values_by_number])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return random.choice((0.0, -1.0, 1e-30, 1e30, math.nan, math.inf, -math.inf, 0.5, 3.0, 1e9))
    if field.type == FieldDescriptor.TYPE_BYTES:
        text = mutated_bytes(bytes(now or b""), random)
        return random.choice((text, text, b"", b"NOTSET", b"SAME_UPPER", b"\xff"))
    usable = [text for text in ODD_TEXTS if text.isprintable() or text in ("\0", "\n")]
    usable = [text for text in usable if "\ud800" not in text]
    return random.choice([*names, *names, *usable, *_OPERATORS])


_OPERATORS = (
    "Conv", "Relu", "Add", "Mul", "Concat", "Reshape", "Transpose", "Gemm", "MatMul", "BatchNormalization",
    "Identity", "Slice", "Split", "Pad", "Expand", "Tile", "Range", "ConstantOfShape", "Gather", "Shape", "Resize",
    "Softmax", "If", "Loop", "Scan", "TopK", "NonZero", "Flatten", "Squeeze", "Unsqueeze", "ReduceMean",
    "GlobalAveragePool", "MaxPool", "AveragePool", "ConvTranspose", "QuantizeLinear", "DequantizeLinear", "Cast",
    "Where", "Einsum", "LSTM", "SequenceEmpty", "OneHot", "DepthToSpace", "InstanceNormalization", "Dropout",
    "NonMaxSuppression", "GridSample", "RandomNormal", "ScatterND", "CumSum", "LayerNormalization", "Constant",
    "NoSuchOperator",
)  # fmt: skip
