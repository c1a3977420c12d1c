"""ChatMessage.user: images, audio and files are sent in the form of the API, or rejected."""

from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from . import lib, loaded_by

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0"
MP3_TAG = b"ID3\4\0\0\0\0\0\0"
MP3_FRAME = b"\xff\xfb\x90\x64"
GIF = b"GIF89a\1\0\1\0"
WEBP = b"RIFF\n\0\0\0WEBPVP8 "
HEIC = b"\0\0\0\x18ftypheic"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
HTML = b"<!DOCTYPE html><title>403 Forbidden</title>"
PDF = b"%PDF-1.7\n"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

USER = lib.ChatMessage.user


def base64(data):
    return b64encode(data).decode()


def sent(*args, **kwargs):
    return USER(*args, **kwargs).to_dict()["content"]


def image_of(given):
    [part] = sent("", images=given)
    assert part.keys() == {"type", "image_url"}
    return part["image_url"]["url"]


def error_text(**given):
    with pytest.raises(lib.ConfigError) as caught:
        USER("Look.", **given)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1300
    return text


@pytest.fixture
def path(tmp_path):
    """Write a file; give its path."""

    def written(name, data):
        file = tmp_path / name
        file.write_bytes(data)
        return file

    return written


@pytest.mark.parametrize("nothing", [{}, {"images": [], "audio": (), "files": iter([])}])
def test_text_alone_stays_text(nothing):
    assert USER("Hi", **nothing).to_dict() == {"role": "user", "content": "Hi"}
    assert USER("", **nothing, detail="low").to_dict() == {"role": "user", "content": ""}


def test_a_text_message_loads_no_media_modules():
    loaded = loaded_by(f"import {lib.name} as lib; lib.ChatMessage.user('Hi')")
    assert lib.name in loaded
    assert not loaded & {"base64", "mimetypes", "hmac"}


def test_the_parts_are_text_images_audio_files_each_in_their_order(path):
    message = USER(
        "Look.",
        files=[path("b.pdf", PDF), "file-abc123"],
        audio=WAV,
        images=["https://host/a.png", path("a.png", PNG)],
    )
    assert message.text == "Look."
    assert message.to_dict() == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look."},
            {"type": "image_url", "image_url": {"url": "https://host/a.png"}},
            {
                "type": "image_url",
                "image_url": {"url": f"data:image/png;base64,{base64(PNG)}"},
            },
            {"type": "input_audio", "input_audio": {"data": base64(WAV), "format": "wav"}},
            {
                "type": "file",
                "file": {
                    "filename": "b.pdf",
                    "file_data": f"data:application/pdf;base64,{base64(PDF)}",
                },
            },
            {"type": "file", "file": {"file_id": "file-abc123"}},
        ],
    }


def test_an_empty_text_adds_no_part():
    assert [part["type"] for part in sent("", images=PNG)] == ["image_url"]


# Images


@pytest.mark.parametrize("url", ["http://host/a", "HTTPS://host/a.svg"])
def test_the_url_of_an_image_is_sent_as_it_is(url):
    assert image_of(url) == image_of([url]) == url


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{base64(PNG)}",
        f"DATA:image/jpeg;charset=x;BASE64,{base64(PNG)}",
        f"data:;base64,{base64(PNG)[:9]} {base64(PNG)[9:]}".replace("=", "%3D"),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    ],
    ids=["as-sent", "of-a-wrong-type", "with-escapes", "not-in-base64"],
)
def test_a_data_url_is_sent_with_the_type_that_its_bytes_have(url):
    assert image_of(url) == image_of([url]) == f"data:image/png;base64,{base64(PNG)}"


@pytest.mark.parametrize(
    "given_as",
    [str, Path, lambda path: [path], lambda path: (str(path),), lambda path: path.parent.glob("*"),
     Path.read_bytes, lambda path: bytearray(path.read_bytes()),
     lambda path: [memoryview(path.read_bytes())]],
    ids=["str", "Path", "list", "tuple", "glob", "bytes", "bytearray", "memoryview"],
)  # fmt: skip
def test_an_image_is_a_path_or_bytes_alone_or_among_several(given_as, path):
    assert image_of(given_as(path("a.png", PNG))) == f"data:image/png;base64,{base64(PNG)}"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "png"),
        (JPEG, "jpeg"),
        (b"GIF87a", "gif"),
        (GIF, "gif"),
        (WEBP, "webp"),
    ],
)
def test_the_type_of_an_image_is_detected_from_its_bytes(data, kind, path):
    assert image_of(data).startswith(f"data:image/{kind};base64,")
    assert image_of(path("a.txt", data)) == image_of(path("a.heic", data)) == image_of(data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param(HEIC, "image/heic", id="heic"),
        pytest.param(b"\0\0\0\x18ftypavif", "image/avif", id="avif"),
        pytest.param(b"II*\0\x08\0", "image/tiff", id="tiff"),
        pytest.param(b"MM\0*\0\0", "image/tiff", id="tiff-big-endian"),
        pytest.param(b"BM\x46\0\0\0\0\0\0\0", "image/bmp", id="bmp"),
        pytest.param(PDF, "application/pdf", id="pdf"),
        pytest.param(WAV, "audio/wav", id="wav"),
        pytest.param(SVG, "another type", id="svg"),
        pytest.param(HTML, "another type", id="html"),
        pytest.param(b"\0\0\1\0\1\0", "another type", id="ico"),
        pytest.param(PNG[:7], "another type", id="cut"),
        pytest.param(b"\n" + PNG, "another type", id="shifted"),
    ],
)
@pytest.mark.parametrize("name", ["photo.jpg", "photo.PNG", "photo.webp"])
def test_data_that_is_not_an_image_is_rejected_whatever_its_name(name, data, found, path):
    words = f"its first bytes are those of {found}"
    for given in (path(name, data), data, f"data:image/png;base64,{base64(data)}"):
        text = error_text(images=given)
        assert "the API takes PNG, JPEG, GIF and WebP" in text
        assert text.endswith(words)
    assert name in error_text(images=path(name, data))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:image/png;base64,@@@", "data:image/png;base64: invalid base64"),
        (f"data:image/png;base64,{base64(PNG)[:-3]}", "data:image/png;base64: invalid base64"),
        ("data:image/png;base64,é", "data:image/png;base64: invalid base64"),
        ("data:image/png;base64,", "data:image/png;base64: empty"),
        ("data:,", "data:: empty"),
        ("data:image/png", "data:image/png: empty"),
        (f"data:text/html;base64,{base64(HTML)}", "its first bytes are those of another type"),
        (f"data:image/png,{base64(PNG)}", "its first bytes are those of another type"),
    ],
)
def test_a_data_url_without_a_valid_image_is_rejected_with_the_reason(url, words):
    text = error_text(images=url)
    assert words in text
    assert base64(PNG) not in text
    assert base64(HTML) not in text


def test_a_data_url_without_a_comma_is_shortened_in_the_error():
    assert len(error_text(images="data:" + "A" * 100_000)) < 2000


def test_a_path_may_begin_with_the_home_folder(path, monkeypatch):
    monkeypatch.setenv("HOME", str(path("a.png", PNG).parent))
    assert image_of("~/a.png") == image_of(Path("~/a.png")) == image_of(PNG)
    path("a.pdf", PDF)
    assert sent("", files="~/a.pdf")[0]["file"]["filename"] == "a.pdf"


def test_an_open_binary_file_is_read(path):
    with path("a.png", PNG).open("rb") as file:
        assert image_of([file]) == image_of(PNG)
    assert image_of(BytesIO(PNG)) == image_of(PNG)
    with path("a.pdf", PDF).open("rb") as file:
        assert sent("", files=file)[0]["file"]["filename"] == "a.pdf"
    with TemporaryFile() as file:  # its name is a number
        file.write(WAV)
        file.seek(0)
        assert sent("", audio=file) == sent("", audio=WAV)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_a_pillow_image_is_sent_as_png(mode):
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    url = image_of([pillow.new(mode, (3, 2))])
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    read = pillow.open(BytesIO(b64decode(data)))
    assert (read.size, read.mode) == ((3, 2), mode)


def test_a_pillow_image_that_png_cannot_hold_is_rejected_with_the_reason():
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    assert error_text(images=pillow.new("F", (1, 1))).endswith("cannot write mode F as PNG")


def test_an_array_is_rejected_with_a_hint_how_to_convert_it():
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    pixels = numpy.zeros((2, 3, 3), "uint8")
    assert error_text(images=pixels).endswith("(of an array: Image.fromarray(array))")
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    assert image_of(pillow.fromarray(pixels)).startswith("data:image/png;base64,")
    encoded = numpy.frombuffer(PNG, "uint8")
    assert image_of(encoded.tobytes()) == image_of(PNG)


def test_detail_is_sent_with_every_image(path):
    parts = sent("", images=["https://host/a", PNG], detail="low")
    assert [part["image_url"]["detail"] for part in parts] == ["low", "low"]


def test_detail_may_be_any_text_and_is_not_sent_with_audio_and_files():
    parts = sent("", images="https://host/a", audio=WAV, files=PDF, detail="enormous")
    assert parts[0] == {
        "type": "image_url",
        "image_url": {"url": "https://host/a", "detail": "enormous"},
    }
    assert "enormous" not in str(parts[1:])


@pytest.mark.parametrize("argument", ["images", "audio", "files"])
def test_a_part_in_the_apis_own_form_is_sent_as_it_is(argument):
    plain = {"type": "video_url", "video_url": {"url": "https://host/a"}}
    noun = lib.ContentPart("image_url", image_url={"url": "https://host/b"})
    assert sent("", **{argument: plain}, detail="low") == [plain]
    assert sent("", **{argument: [noun, plain]}, detail="low") == [noun.to_dict(), plain]


# Audio


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (WAV, "wav"),
        (MP3_TAG, "mp3"),
        (MP3_FRAME, "mp3"),
        (b"\xff\xf3\x40", "mp3"),
        (b"\xff\xe2\x40", "mp3"),
    ],
)
def test_the_format_of_audio_is_detected_from_its_bytes(data, form, path):
    expected = [{"type": "input_audio", "input_audio": {"data": base64(data), "format": form}}]
    assert sent("", audio=data) == sent("", audio=path("a.bin", data)) == expected


@pytest.mark.parametrize(
    ("url", "data", "form"),
    [
        (f"data:audio/wav;base64,{base64(WAV)}", WAV, "wav"),
        (f"data:audio/x-wav;base64,{base64(WAV)}", WAV, "wav"),
        ("DATA:Audio/MPEG;codecs=mp3; BASE64,SUQzBAAAAAAAAA%3D%3D", MP3_TAG, "mp3"),
        ("data:audio/mp3,ID3%04%00%00%00%00%00%00", MP3_TAG, "mp3"),
    ],
)
def test_audio_in_a_data_url_is_unpacked(url, data, form):
    [part] = sent("", audio=url)
    assert part["input_audio"] == {"data": base64(data), "format": form}


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.flac", b"fLaC\0\0\0\x22"), ("a.ogg", b"OggS\0"), ("a.m4a", b"\0\0\0\x18ftypM4A "),
     ("a.aac", b"\xff\xf1\x50"), ("a.mp2", b"\xff\xfd\x90"), ("a.png", PNG), ("a.wav", PDF),
     ("a.mp3", HTML), ("a.wav", b"?")],
)  # fmt: skip
def test_audio_in_an_unsupported_format_is_rejected_with_the_supported_ones(name, data, path):
    text = error_text(audio=path(name, data))
    assert "wav and mp3" in text
    assert name in text
    assert "data:" not in text


# Files


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.pdf", PDF, "application/pdf"),
        ("a.dat", PDF, "application/pdf"),
        ("a.pdf", b"\xef\xbb\xbf\r\n%PDF-1.4", "application/pdf"),
        ("a.svg", SVG, "image/svg+xml"),
        ("ä b.CSV", b"?", "text/csv"),
        ("a.txt", b"?", "text/plain"),
        ("a.md", b"?", "text/markdown"),
        ("a.docx", b"PK\3\4", DOCX),
    ],
)
def test_a_file_is_sent_with_its_name_and_kind(name, data, kind, path):
    [part] = sent("", files=path(name, data))
    assert part == {
        "type": "file",
        "file": {"filename": name, "file_data": f"data:{kind};base64,{base64(data)}"},
    }


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (PDF, "file.pdf"),
        ("data:text/plain;charset=utf-8,hi", "file.txt"),
        (f"data:{DOCX};base64,UEsDBA==", "file.docx"),
        ("data:text/x-unheard-of,hi", "file"),
    ],
)
def test_a_file_without_a_name_is_named_by_its_kind(given, name):
    [part] = sent("", files=given)
    assert part["file"]["filename"] == name


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.pdf", "application/pdf"), ("a.png", "image/png"), ("a.mp3", "audio/mpeg")],
)
def test_a_file_whose_content_contradicts_its_name_is_rejected(name, kind, path):
    text = error_text(files=path(name, HTML))
    assert text.endswith(f"{name}: its first bytes are not those of {kind}")
    assert error_text(files=f"data:{kind};base64,{base64(HTML)}").endswith(f"not those of {kind}")


def test_a_file_in_a_data_url_is_sent_in_base64():
    [part] = sent("", files="data:text/plain;charset=utf-8,h%69")
    assert part["file"]["file_data"] == "data:text/plain;base64,aGk="


def test_a_file_id_is_distinguished_from_a_file_name(path, monkeypatch):
    monkeypatch.chdir(path("file-abc", PDF).parent)
    assert sent("", files="file-xyz") == [{"type": "file", "file": {"file_id": "file-xyz"}}]
    assert sent("", files="file-abc")[0]["file"]["filename"] == "file-abc"
    assert "file-report.pdf: No such file" in error_text(files="file-report.pdf")
    assert "file-xyz: No such file" in error_text(files=Path("file-xyz"))


# What can't be sent

ARGUMENTS = pytest.mark.parametrize("argument", ["images", "audio", "files"])


@ARGUMENTS
def test_an_unreadable_file_is_rejected_with_its_path(argument, path, tmp_path):
    empty, folder = path("empty.png", b""), tmp_path / "folder"
    folder.mkdir()
    for given, words in [
        (tmp_path / "none.png", "none.png: No such file or directory"),
        (f"{tmp_path}/none.png", "none.png: No such file or directory"),
        ("~/none.png", "~/none.png: No such file or directory"),
        (folder, "folder: it is a folder"),
        (empty / "a.png", "empty.png/a.png: Not a directory"),
        (empty, "empty.png: empty"),
        (b"", "0 bytes: empty"),
        ("", "'': No such file or directory"),
        ("a\0b", "null"),
        ("A" * 100_000, "File name too long"),
    ]:
        assert words in error_text(**{argument: given})
        assert words in error_text(**{argument: [given]})


def test_the_os_error_of_a_failed_read_is_the_cause(tmp_path):
    with pytest.raises(lib.ConfigError) as caught:
        USER("", images=tmp_path / "none.png")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("name", ["a", "a.unheard-of", "a.bin", "a.txt.gz", ".png"])
def test_a_file_of_unknown_type_is_rejected_with_its_path(name, path):
    text = error_text(files=path(name, b"?"))
    assert f"{name}: its type is known neither by its first bytes nor by its name" in text
    assert "1 bytes: its type is known" in error_text(files=b"?")


@pytest.mark.parametrize("argument", ["audio", "files"])
@pytest.mark.parametrize("url", ["http://host/a.wav", "https://host/a.pdf"])
def test_a_url_is_rejected_for_audio_and_files(argument, url):
    assert f"{url}: the API does not accept a URL here" in error_text(**{argument: url})


@pytest.mark.parametrize("argument", ["audio", "files"])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:audio/wav;base64,@@@", "data:audio/wav;base64: invalid base64"),
        ("data:audio/wav;base64,é", "data:audio/wav;base64: invalid base64"),
        ("data:audio/wav;base64,", "data:audio/wav;base64: empty"),
        ("data:audio/wav", "empty"),
        ("data:;base64,Pw==", "its first bytes"),
        ("data:application/octet-stream,?", "its first bytes"),
    ],
)
def test_a_broken_data_url_is_rejected_with_the_reason(argument, url, words):
    assert words in error_text(**{argument: url})


@ARGUMENTS
@pytest.mark.parametrize("given", [5, None, True, [5], [None], [[PNG]], object()], ids=repr)
def test_an_argument_of_an_unsupported_type_is_rejected(argument, given):
    text = error_text(**{argument: given})
    assert "give a URL, a path, bytes, an open binary file or a Pillow image" in text
    assert "of type " in text


@ARGUMENTS
def test_an_open_file_without_readable_bytes_is_rejected(argument, path):
    file = path("a.txt", b"text").open()
    with file:
        text = error_text(**{argument: file})
        assert text.endswith("of type TextIOWrapper: open the file in binary mode")
    assert "closed file" in error_text(**{argument: [file]})
    with path("a.txt", b"text").open("wb") as file:
        assert error_text(**{argument: file}).endswith("read")


def test_a_large_image_is_sent_completely(path):
    data = PNG + bytes(range(256)) * 1000
    assert b64decode(image_of(path("a.png", data)).partition(",")[2]) == data
