#!/bin/sh
# Make a certificate that clients can check: of the broker, of Grafana, of a daemon's metrics.
#
#   sh make-certificates.sh FOLDER NAME HOST...
#
# writes FOLDER/NAME.key and FOLDER/NAME.crt, for as many host names and addresses as are given, signed by FOLDER/ca.key;
# the authority (ca.key, ca.crt) is made first if there is none. A certificate that exists is made anew (that is how one
# is renewed); the authority never is. ca.crt goes to every client; ca.key should not stay on a server.
set -eu
umask 077
[ $# -ge 3 ] || { echo "usage: make-certificates.sh FOLDER NAME HOST..." >&2; exit 2; }
folder=$1 name=$2
shift 2
mkdir -p "$folder"
cd "$folder"

if [ ! -e ca.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=edge_asd plant CA" \
    -keyout ca.key -out ca.crt.part \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
  mv ca.crt.part ca.crt
  echo "made the authority $folder/ca.crt, for ten years"
fi

names=
for host; do
  case $host in
    *:*) kind=IP ;;             # of IPv6
    *[!0-9.]*) kind=DNS ;;
    *) kind=IP ;;
  esac
  names=$names${names:+,}$kind:$host
done
extensions=$(mktemp)
trap 'rm -f "$extensions" "$name.csr" "$name.crt.part"' EXIT
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$names" >"$extensions"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
  -keyout "$name.key.part" -out "$name.csr" 2>/dev/null
# 825 days are the most that some clients accept.
openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -out "$name.crt.part" \
  -extfile "$extensions" 2>/dev/null
mv "$name.key.part" "$name.key"
mv "$name.crt.part" "$name.crt"
chmod 644 ca.crt "$name.crt"
echo "made $folder/$name.crt for $names, until $(openssl x509 -in "$name.crt" -noout -enddate | cut -d= -f2)"
