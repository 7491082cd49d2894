"""No spelling carries a secret into what is written down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.redaction import HIDDEN, Redactor
from balancer.model import AccessLog

REDACTOR = Redactor(AccessLog().redact)
SECRET = b"3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru30k1jqdmi"


@pytest.mark.parametrize(
    ("target", "written"),
    [
        (b"/a?api_token=SECRET", b"/a?api_token=[redacted]"),
        (b"/a?x=1&ping_secret=SECRET&y=2", b"/a?x=1&ping_secret=[redacted]&y=2"),
        (b"/a?api%5Ftoken=SECRET", b"/a?api%5Ftoken=[redacted]"),
        (b"/a?API_Token=SECRET", b"/a?API_Token=[redacted]"),
        (b"/a?api%255ftoken=SECRET", b"/a?api%255ftoken=[redacted]"),
        (b"/a?reader_tokens[]=SECRET", b"/a?reader_tokens[]=[redacted]"),
        (b"/a?reader_tokens%5B0%5D=SECRET", b"/a?reader_tokens%5B0%5D=[redacted]"),
        (b"/a?session[api_token]=SECRET", b"/a?session[api_token]=[redacted]"),
        (b'/a?reader_tokens=["v2/x/SECRET","SECRET"]', b"/a?reader_tokens=[redacted]"),
        (b"/a?a=1;api_token=SECRET", b"/a?a=[redacted]"),
        (b'/a?{"api_token":"SECRET"}&a=b', b"/a?[redacted]&a=b"),
        (b"/a?api_token=SEC;RET", b"/a?api_token=[redacted]"),
        (b"/login?return_to=https%3A%2F%2Fw%2F%3Fapi_token%3DSECRET", b"/login?return_to=[redacted]"),
        (b"/a?api_token%3DSECRET=x", b"/a?[redacted]"),
        (b"/a?api_token", b"/a?[redacted]"),
        (b"/a?xapi_tokenSECRET%25", b"/a?[redacted]"),
        (b'/a?filters=[["api_token","=","SECRET"]]', b"/a?filters=[redacted]"),
        (b"/api_token=SECRET/x", b"/[redacted]"),
        (b"/x;api_token=v2/a/SECRET", b"/[redacted]"),
        (b"/api_token/x?a=b", b"/api_token/x?a=b"),
        (b"http://me:SECRET@h/a", b"http://[redacted]@h/a"),
        (b"/a?to=http://me:SECRET@h/a", b"/a?to=[redacted]"),
        (
            b"/a?filters=%5B%5B%22uuid%22%2C%22%3D%22%5D%5D&limit=5",
            b"/a?filters=%5B%5B%22uuid%22%2C%22%3D%22%5D%5D&limit=5",
        ),
        (b"/a?%zz&&=&", b"/a?%zz&&=&"),
        (b"*", b"*"),
    ],
)
def test_values_of_sensitive_parameters_are_hidden(target: bytes, written: bytes) -> None:
    assert REDACTOR.target(target) == written


def veiled(text: bytes) -> st.SearchStrategy[bytes]:
    """Each byte in either case, plain or percent-encoded up to three times."""

    def forms(byte: int) -> st.SearchStrategy[bytes]:
        plain = bytes((byte,))
        once = b"%%%02x" % byte
        return st.sampled_from((plain, plain.upper(), once, once.upper(), b"%25" + once[1:], b"%2525" + once[1:]))

    return st.tuples(*(forms(byte) for byte in text)).map(b"".join)


names = st.sampled_from((b"api_token", b"ping_secret", b"reader_tokens")).flatmap(veiled)
around = st.sampled_from((b"", b"v2/zzzzz-gj3su-x/", b'["', b"%22", b"a;", b"?", b"="))
after = st.sampled_from((b"", b"&x=1", b"&x=%3d", b"#", b"/ping", b"%26x=y", b"="))


@given(
    before=st.sampled_from((b"/a?", b"/a?x=%5B&", b"/a?x=1;", b"http://h/?", b"/a?o[", b"/a?u=/b?", b"/a?u=b%26")),
    name=names,
    middle=st.sampled_from((b"=", b"[]=", b"%5B%5d=", b"]=", b"[0][x]=", b"%3D", b'":"', b"%22:%22", b"%253d")),
    around=around,
    after=after,
)
def test_a_secret_never_gets_through(before: bytes, name: bytes, middle: bytes, around: bytes, after: bytes) -> None:
    assert SECRET not in REDACTOR.target(before + name + middle + around + SECRET + after)


@given(st.sampled_from((b"/", b"/x;", b"/a/")), names, st.sampled_from((b"=", b"%3D", b"%253d")), around, after)
def test_a_secret_in_a_path_does_not_either(
    before: bytes, name: bytes, middle: bytes, around: bytes, after: bytes
) -> None:
    assert SECRET not in REDACTOR.target(before + name + middle + around + SECRET + after)


@given(st.binary(max_size=80))
def test_redacting_twice_changes_nothing_more(junk: bytes) -> None:
    once = REDACTOR.target(b"/" + junk)
    assert REDACTOR.target(once) == once


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        (b"Authorization", b"Bearer SECRET", b"Bearer [redacted]"),
        (b"authorization", b"OAuth2 v2/x/SECRET", b"OAuth2 [redacted]"),
        (b"AUTHORIZATION", b"SECRET", HIDDEN),
        (b"Authorization", b"SECRET x", HIDDEN),
        (b"Cookie", b"a=SECRET", HIDDEN),
        (b"Set-Cookie", b"a=SECRET; Path=/", HIDDEN),
        (b"Proxy-Authorization", b"Basic SECRET", b"Basic [redacted]"),
        (b"Api-Token", b"SECRET", HIDDEN),
        (b"Api_Token", b"SECRET", HIDDEN),
        (b"Referer", b"https://w/?api_token=SECRET&a=b", b"https://w/?api_token=[redacted]&a=b"),
        (b"Location", b"https://w/?a=b", b"https://w/?a=b"),
        (b"X-Any", b"api_token=SECRET", HIDDEN),
        (b"User-Agent", b"curl/8", b"curl/8"),
    ],
)
def test_headers_lose_their_secrets(name: bytes, value: bytes, written: bytes) -> None:
    assert REDACTOR.header(name, value) == written


def test_more_names_can_be_named() -> None:
    assert (
        Redactor(("upload_key",)).target(b"/a?upload%5fkey=x&api_token=y") == b"/a?upload%5fkey=[redacted]&api_token=y"
    )
    assert Redactor(()).target(b"/a?api_token=y") == b"/a?api_token=y"
