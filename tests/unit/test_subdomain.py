"""The subdomain is all that stands between what was typed and the host that gets a client secret."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from models.errors import ConfigurationError
from models.setup.subdomain import checked_subdomain

GOOD = "mc563885gzs27c5t9-63k636ttgm"


@pytest.mark.parametrize("value", [GOOD, f" {GOOD}\n", GOOD.upper(), "mc1", "a", "x" * 63, "7zip"])
def test_subdomains(value: str) -> None:
    checked = checked_subdomain(value)
    assert checked == value.strip().lower()
    assert urlsplit(f"https://{checked}.auth.marketingcloudapis.com/v2/token").hostname == (
        f"{checked}.auth.marketingcloudapis.com"
    )


@pytest.mark.parametrize(
    "value",
    [
        f"https://{GOOD}.auth.marketingcloudapis.com/",
        f"https://{GOOD}.rest.marketingcloudapis.com",
        f"{GOOD}.soap.marketingcloudapis.com/Service.asmx",
        f"HTTPS://{GOOD.upper()}.AUTH.MARKETINGCLOUDAPIS.COM/v2/token?x=y",
        f"http://{GOOD}.auth.marketingcloudapis.com:443/",
    ],
)
def test_pasted_url_is_refused_with_the_right_value(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked_subdomain(value)
    assert caught.value.code == "SUBDOMAIN_INVALID"
    assert f"here that is {GOOD}" in caught.value.remedy


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-mc1",
        "mc1-",
        "x" * 64,
        "evil.example",
        "evil.example/",
        "evil.example#",
        "evil.example?",
        "evil.example:443",
        "evil.example\\",
        "evil.example/.auth.marketingcloudapis.com",
        "evil.example#.auth.marketingcloudapis.com",
        "mc1@evil.example",
        "user:secret@evil.example/",
        "mc1.auth.marketingcloudapis.com.evil.example",
        "https://evil.example/.auth.marketingcloudapis.com",
        "https://evil.example#mc1.auth.marketingcloudapis.com",
        "https://mc1.auth.marketingcloudapis.com@evil.example",
        "https://mc1.auth.marketingcloudapis.com.evil.example",
        "//evil.example",
        "../evil",
        "mc1/../evil",
        "mc1%2eevil",
        "mc1%00",
        "mc1\x00evil",
        "mc1\nevil",
        "mc1\r\nHost: evil.example",
        "mc1 evil",
        "mc1\tevil",
        "mc_1",
        "mc1;evil",
        "mc1,evil",
        "{mc1}",
        "$(mc1)",
        "`mc1`",
        "'mc1'",
        "mc1|evil",
        "\u043c\u04411",  # Cyrillic
        "mc\uff11",  # a full-width digit
        "mc1\u2024evil",  # a dot that is none
        "mc1\u3002evil",
        "\u212amc1",  # the Kelvin sign, whose lower case is an ASCII k
        "127.0.0.1",
        "[::1]",
        "localhost:8080",
    ],
)
def test_anything_else_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked_subdomain(value)
    assert caught.value.code == "SUBDOMAIN_INVALID"
    assert "evil" not in caught.value.remedy
