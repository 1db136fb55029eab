"""Which addresses are public; all that is not is refused unless the owner allows it."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onceseen.domain.addresses import NAT64, Allowance, literal, why_not_public

PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:2800:220:1::1",
    "2a00:1450::200e",
    "64:ff9b::808:808",
]
REFUSED = [
    *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.255", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2002:7f00:1::", "2002:808:808::", "2001:0:4136::1"),
    *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "4000::1"),
]


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_public(text):
    assert why_not_public(ip_address(text)) == ""


@pytest.mark.parametrize("text", REFUSED)
def test_any_other_is_not(text):
    assert why_not_public(ip_address(text))
    assert Allowance().refuses(ip_address(text))
    assert not Allowance([text]).refuses(ip_address(text))


@given(st.ip_addresses())
@example(ip_address("::ffff:1.2.3.4"))
def test_what_the_standard_library_calls_local_is_never_public(address):
    local = not address.is_global or address.is_multicast or address.is_loopback or address.is_link_local
    if local and address not in NAT64:
        assert why_not_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_no_better(address):
    number = int(address)
    for inside in (number, 0xFFFF << 32 | number, 0x2002 << 112 | number << 80, int(NAT64.network_address) | number):
        if why_not_public(address):
            assert why_not_public(IPv6Address(inside))
    if not why_not_public(address):
        assert not why_not_public(IPv6Address(int(NAT64.network_address) | number))


@given(st.ip_addresses(v=4))
def test_an_address_has_one_form(address):
    number = int(address)
    first, second, third, fourth = address.packed
    assert literal(str(address)) == address
    forms = [
        str(number),
        hex(number),
        f"{first}.{second}.{(third << 8) + fourth}",
        f"{first}.{(second << 16) + (third << 8) + fourth}",
        ".".join(hex(part) for part in address.packed),
        ".".join(f"0{part:o}" for part in address.packed),
        f"{first}.{second}.{third}.0{fourth:03o}",
        f"{address}.",
    ]
    for form in forms:
        with pytest.raises(ValueError, match=r"."):
            literal(form)


@pytest.mark.parametrize(
    "host", ["fe80::1%eth0", "::1%1", "a b", "a/b", "a\\b", "a@b", "", "-", ".", "a..b", "x" * 64 + ".de", "ä.de"]
)
def test_what_is_neither_an_address_nor_a_name_is_refused(host):
    with pytest.raises(ValueError, match=r"."):
        literal(host)


@pytest.mark.parametrize(
    "host", ["localhost", "a.example", "A.example.", "xn--bcher-kva.example", "1a.example", "10.0.0.1.example", "_x.y"]
)
def test_a_name_is_a_name(host):
    assert literal(host) is None


def test_an_allowance_is_of_names_and_networks():
    allowance = Allowance(["Pictures.example", "10.1.0.0/16", "[::1]", "127.0.0.1"])
    assert allowance.host("pictures.EXAMPLE")
    assert allowance.host("pictures.example.")
    assert not allowance.host("more.pictures.example")
    assert not allowance.refuses(IPv4Address("10.1.2.3"))
    assert allowance.refuses(IPv4Address("10.2.0.1")) == "a private address"
    assert not allowance.refuses(IPv6Address("::1"))
    assert allowance.refuses(IPv6Address("::ffff:127.0.0.1"))


@pytest.mark.parametrize("entry", ["", "*", "*.example", "http://x", "x:80", "10.0.0.0/33", "1.2.3", "0x7f.1", "a b"])
def test_an_allowance_that_is_none_is_refused(entry):
    with pytest.raises(ValueError, match="no host name, address or network"):
        Allowance([entry])
