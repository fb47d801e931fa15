"""``block=``: what matches, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from browserkeeper import ConfigError
from browserkeeper.drivers.blocking import chromium_patterns
from browserkeeper.options.blocking import RESOURCE_TYPES, Blocking


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("*.png", "https://example.com/a/b.png", True),
        ("*.png", "https://example.com/a/b.png?v=2", True),
        ("*.png", "https://example.com/b.pngx", False),
        ("*.png", "https://example.com/bpng", False),
        ("*.png?v=1", "https://example.com/b.png?v=1", True),
        ("*.png?v=1", "https://example.com/b.png?v=12", False),
        ("*.png?*", "https://example.com/b.png", False),
        ("*://ads.example.com/*", "https://ads.example.com/x/y?z", True),
        ("*://ads.example.com/*", "https://example.com/?to=ads.example.com", False),
        ("*://*.example.com/*", "http://a.b.example.com/", True),
        ("https://example.com/track", "https://example.com/track?id=5", True),
        ("https://example.com/track", "http://example.com/track", False),
        ("*(1)+[a].js", "https://example.com/x(1)+[a].js", True),
        ("*/pixel*", "https://example.com/a/pixel", True),
        ("*://ADS.Example.com/Path", "https://ads.example.com/Path", True),
        ("*://ADS.Example.com/Path", "https://ads.example.com/path", False),
        ("HTTPS://*.Example.com:8443/*", "https://a.example.com:8443/x", True),
        ("*://example.com*Ads", "https://example.com/Ads", True),
        ("*://*/Track/*", "https://example.com/Track/1", True),
    ],
)
def test_a_pattern_is_for_the_whole_address(pattern: str, address: str, matches: bool) -> None:
    assert Blocking.parse([pattern]).blocks(address, "") is matches


@pytest.mark.parametrize("name", RESOURCE_TYPES)
def test_a_type_blocks_its_destinations_only(name: str) -> None:
    blocking = Blocking.parse([name])
    for other, destinations in RESOURCE_TYPES.items():
        for destination in destinations:
            assert blocking.blocks("https://example.com/x", destination) is (other == name)
    assert not blocking.blocks("https://example.com/x", "")
    assert not blocking.blocks("https://example.com/x", "document")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("image", "Give a list"),
        ("*.png", "Give a list"),
        (b"image", "Give a list"),
        (5, "no list"),
        ({"image": True}, "no list"),
        ([5], "no text"),
        ([None], "no text"),
        ([b"image"], "no text"),
        (["images"], "Write 'image'"),
        (["Image"], "Write 'image'"),
        (["css"], "Write 'stylesheet'"),
        (["js"], "Write 'script'"),
        (["video"], "Write 'media'"),
        (["xhr"], "no resource type"),
        (["document"], "no resource type"),
        ([""], "no resource type"),
        (["*"], "every page"),
        (["**"], "every page"),
        (["*://*"], "every page"),
        (["https://*"], "every page"),
        (["*/*"], "every page"),
        (["ads.example.com"], r"Write '\*://ads.example.com/\*'"),
        (["*://ads.example.com"], r"no path.*Write '\*://ads.example.com/\*'"),
        (["https://Ads.example.com?x=1"], r"no path.*Write 'https://ads.example.com/\?x=1'"),
        (["https://example.com:443/*"], r"port.*Write 'https://example.com/\*'"),
        (["http://example.com:80"], r"port.*Write 'http://example.com/\*'"),
        (["*://me:word@example.com/x"], r"…@.*a user.*Write '\*://example.com/x'"),
        (["*:*"], "every page"),
        (["*.*"], "every page"),
        (["/ads/*"], r"Write '\*/ads/\*'"),
        ([".png"], "matches no address"),
        (["wss://example.com/*"], "websockets"),
        (["data:*"], "matches no address"),
        (["file:///*"], "http and https"),
        (["*.p ng"], "blanks"),
        (["*.png\n"], "blanks"),
        (["*\\*.png"], "blanks"),
        (["*#top.png"], "blanks"),
        (["*://exämple.com/*"], "ASCII"),
        (["image", "*.png", "fonts"], "Write 'font'"),
    ],
)
def test_what_can_block_nothing_or_all_is_refused_by_name(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Blocking.parse(given)
    assert "block=" in str(caught.value)


def test_sets_tuples_and_doubles_are_taken() -> None:
    assert Blocking.parse(("image", "image", "*.png", "*.png")) == Blocking(("image",), ("*.png",))
    assert Blocking.parse({"font"}) == Blocking(("font",))
    assert not Blocking.parse([])


def test_chromium_gets_the_question_mark_as_itself() -> None:
    found = [each["urlPattern"] for each in chromium_patterns(Blocking.parse(["*/a?b=*", "*.png"]))]
    assert found == [r"*/a\?b=*", "*.png", r"*.png\?*"]
