#!/bin/sh
# PowerDNS 4.7: rights for one zone. pdns.conf needs dnsupdate=yes and allow-dnsupdate-from=(the senders).
# With SQLite use `batch: 50`: 500 hosts in one message take seconds there.
set -eu
zone=${1:?zone} secret=${2:?secret of the key file}
pdnsutil import-tsig-key upd hmac-sha256 "$secret"
pdnsutil set-meta "$zone" TSIG-ALLOW-DNSUPDATE upd
pdnsutil set-meta "$zone" ALLOW-DNSUPDATE-FROM 192.0.2.0/24    # both have to allow it
pdnsutil set-meta "$zone" TSIG-ALLOW-AXFR upd
pdnsutil set-meta "$zone" SOA-EDIT-DNSUPDATE INCREASE
