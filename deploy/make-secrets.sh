#!/bin/sh
# Make every secret that compose.yaml needs, in the folder secrets/; what is there already stays.
#
#   sh make-secrets.sh HOST...       the names and addresses under which this server is reached
#
# Needs openssl, and mosquitto_passwd (Debian: mosquitto) or docker.
set -eu
umask 077
[ $# -ge 1 ] || { echo "usage: make-secrets.sh HOST..." >&2; exit 2; }
cd "$(dirname "$0")"
mkdir -p secrets

[ -e secrets/server.crt ] || sh mosquitto/make-certificates.sh secrets server "$@" localhost 127.0.0.1

for name in mqtt-edge mqtt-reader mqtt-operator mqtt-plc metrics grafana-admin; do
  [ -e "secrets/$name-password" ] || openssl rand -base64 24 | tr -d '\n' >"secrets/$name-password"
done
# Of the mail server, where it wants one: put it in by hand.
[ -e secrets/smtp-password ] || : >secrets/smtp-password

if [ ! -e secrets/mqtt-passwd ]; then
  for user in edge reader operator plc; do
    printf '%s:%s\n' "$user" "$(cat "secrets/mqtt-$user-password")"
  done >secrets/mqtt-passwd.part
  if command -v mosquitto_passwd >/dev/null; then
    mosquitto_passwd -U secrets/mqtt-passwd.part
  else
    docker run --rm -v "$PWD/secrets:/secrets" eclipse-mosquitto:2.0.22 mosquitto_passwd -U /secrets/mqtt-passwd.part
  fi
  mv secrets/mqtt-passwd.part secrets/mqtt-passwd
fi

# Each container mounts single files and reads them as a user of its own. Nobody else gets past the folder, which is the
# owner's alone.
chmod 700 secrets
chmod 644 secrets/server.key secrets/*-password secrets/mqtt-passwd
echo "secrets/ is complete; mqtt-edge-password and ca.crt go to the daemons, grafana-admin-password to you"
