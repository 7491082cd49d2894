"""A copy of a zone: the whole by AXFR once, then only what changed by IXFR."""

import asyncio
from collections.abc import Mapping

import dns.asyncquery
import dns.exception
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.versioned
import dns.xfr

from dnsupdate.diagnosis import Context, Diagnosis, Failure, Seen, diagnose
from dnsupdate.errors import DnsUpdateError
from dnsupdate.exchange import Peer
from dnsupdate.message import dns_key
from dnsupdate.rdata import NAMES_ONLY

LIFETIME_S = 120.0
# name -> type -> (ttl, data)
Content = Mapping[str, Mapping[str, tuple[int, frozenset[str]]]]


class TransferError(DnsUpdateError):
    """The zone cannot be had whole; `diagnosis` says why."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis


class Mirror:
    """The copy. Kept between refreshes, so that a refresh of an unchanged zone costs one small answer."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self._copy: dns.versioned.Zone | None = None

    @property
    def serial(self) -> int | None:
        """The SOA serial of the copy."""
        if self._copy is None or self._copy.origin is None:
            return None
        soa = self._copy.get_rdataset(self._copy.origin, "SOA")
        return None if soa is None else int(soa[0].serial)

    def forget(self) -> None:
        """Have the next refresh fetch the whole zone: its serial may not mean what it meant."""
        self._copy = None

    async def refresh(self, peer: Peer, *, timeout_s: float, lifetime_s: float = LIFETIME_S) -> Content:
        """Fetch what is new and return everything.

        Args:
            peer: the server.
            timeout_s: for each message.
            lifetime_s: for all of them.

        Raises:
            TransferError: no right to it, no such zone, or the network.
        """
        before = self.serial
        copy = self._copy if self._copy is not None else dns.versioned.Zone(self.zone, relativize=False)
        try:
            async with asyncio.timeout(lifetime_s):
                query, _ = dns.xfr.make_query(copy, keyring=dns_key(peer.key) if peer.key else None)
                await dns.asyncquery.inbound_xfr(peer.address, copy, query, port=peer.port, timeout=timeout_s)
        except dns.xfr.SerialWentBackwards:
            if before is None:
                raise
            self.forget()
            return await self.refresh(peer, timeout_s=timeout_s, lifetime_s=lifetime_s)
        except (dns.exception.DNSException, OSError, EOFError, TimeoutError, ValueError) as exc:
            self.forget()
            raise TransferError(_diagnosis(exc, peer, self.zone, timeout_s)) from exc
        self._copy = copy
        return await asyncio.to_thread(_content, copy)  # seconds for 100 000 names, and others wait for the loop


def _diagnosis(exc: Exception, peer: Peer, zone: str, timeout_s: float) -> Diagnosis:
    context = Context(
        server=peer.name, zone=zone, key=peer.key.name if peer.key else "(none)", timeout_s=timeout_s, fudge_s=300
    )
    return diagnose(_seen(exc), context)


_SEEN: tuple[tuple[type[BaseException], Seen], ...] = (
    (dns.tsig.PeerBadKey, Seen(rcode="NOTAUTH", tsig_error="BADKEY")),
    (dns.tsig.PeerBadSignature, Seen(rcode="NOTAUTH", tsig_error="BADSIG")),
    (dns.tsig.PeerBadTime, Seen(rcode="NOTAUTH", tsig_error="BADTIME")),
    (TimeoutError, Seen(failure=Failure.TIMEOUT)),
    (dns.exception.Timeout, Seen(failure=Failure.TIMEOUT)),
    (EOFError, Seen(failure=Failure.CLOSED)),
    (ConnectionRefusedError, Seen(failure=Failure.REFUSED)),
    (ConnectionError, Seen(failure=Failure.RESET)),
    (OSError, Seen(failure=Failure.UNREACHABLE)),
    (dns.exception.FormError, Seen(rcode="REFUSED")),  # answered without a signature
)


def _seen(exc: Exception) -> Seen:
    if isinstance(exc, dns.xfr.TransferError):
        return Seen(rcode=dns.rcode.to_text(exc.rcode), signed=True)
    return next((seen for kind, seen in _SEEN if isinstance(exc, kind)), Seen(failure=Failure.GARBAGE))


def _content(copy: dns.versioned.Zone) -> Content:
    found: dict[str, dict[str, tuple[int, frozenset[str]]]] = {}
    with copy.reader() as version:
        for name, rdataset in version.iterate_rdatasets():
            rdtype = dns.rdatatype.to_text(rdataset.rdtype)
            texts = (rdata.to_text() for rdata in rdataset)
            data = frozenset(text.lower() if rdtype in NAMES_ONLY else text for text in texts)
            found.setdefault(str(name).lower(), {})[rdtype] = (rdataset.ttl, data)
    return found
