#!/bin/sh
# Puts what people read into a package's root: install-documents.sh ROOT. Their links hold there, see tests/deploy.
set -eu

root=$1
source=$(cd "$(dirname "$0")/../.." && pwd)
documents=/usr/share/doc/edge-asd

install -d "$root$documents/schemas" "$root/etc/edge-asd"
install -m644 "$source"/deploy/schemas/*.json "$root$documents/schemas"
for text in systemd/README.md systemd/security.md deploy/integration.md systemd/package/copyright; do
  sed 's#(\.\./deploy/schemas)#(schemas)#' "$source/$text" >"$root$documents/$(basename "$text")"
  chmod 644 "$root$documents/$(basename "$text")"
done
sed "1s#=schemas/#=$documents/schemas/#" "$source/deploy/edge-asd.example.yaml" >"$root/etc/edge-asd/example.yaml"
chmod 644 "$root/etc/edge-asd/example.yaml"
