#!/bin/sh
# Builds the Debian package: build-deb.sh PIP_PYTHON BUILD_FOLDER OUT_FOLDER, see `make deb`.
#
# The package holds an environment of its own under /opt/edge-asd, without torch, librosa or anything that trains. The
# interpreter is the distribution's: its security updates reach us without a new package of ours, and the package stays
# small. The price is one package for each minor version of Python, which the dependencies say.
set -eu

pip_python=$1 build=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
source=$(dirname "$here")
python=${DEB_PYTHON:-/usr/bin/python3}
architecture=$(dpkg --print-architecture)
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$source/edge_asd/__init__.py")
package_version=${DEB_VERSION:-$version}
minor=$("$python" -c 'import sys; print("{}.{}".format(*sys.version_info))')
next=$("$python" -c 'import sys; print("{}.{}".format(sys.version_info[0], sys.version_info[1] + 1))')
: "${SOURCE_DATE_EPOCH:=$(git -C "$source" log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
umask 022

root=$build/root
home=$root/opt/edge-asd
packages=$home/lib/python$minor/site-packages
rm -rf "$build" && mkdir -p "$build/source" "$home/bin" "$packages" "$root/DEBIAN" "$out"

# An environment that finds itself: Python looks for pyvenv.cfg beside its own link, wherever that stands.
ln -s "/usr/bin/python$minor" "$home/bin/python3"
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$minor" >"$home/pyvenv.cfg"

# From a copy, as setuptools leaves its own folders behind, and takes up stale ones.
cp -r "$source/edge_asd" "$source/train" "$source/pyproject.toml" "$source/README.md" "$source/LICENSE" "$build/source"
"$pip_python" -m pip --python "$home/bin/python3" install --quiet --disable-pip-version-check --no-compile \
  --no-warn-script-location --only-binary :all: --no-binary edge-asd "$build/source"

# What the daemon does not need: the training code, other programs, tests, headers.
rm -rf "$packages/edge_asd_train" "$home/include" "$home/share"
find "$home/bin" -mindepth 1 ! -name python3 -delete
find "$packages" -type d \( -name tests -o -name include -o -name __pycache__ \) -prune -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.h' -o -name '*.a' -o -name '*.pyx' -o -name '*.pxd' \) -delete
rm -rf "$packages/numpy/f2py" "$packages/numpy/random/_examples" "$packages/onnxruntime/transformers" "$packages/onnxruntime/tools" \
  "$packages/onnxruntime/quantization"
# ONNX Runtime for programs in C, half of its weight, which Python's own part does not use; pictures that we do not write.
rm -f "$packages"/onnxruntime/capi/libonnxruntime.so.* "$packages"/PIL/_avif.*.so "$packages"/pillow.libs/libavif-*
sed -i '/^edge_asd_train\//d; /\/edge-asd-train,/d' "$packages"/edge_asd-*.dist-info/RECORD
sed -i '/^edge-asd-train/d' "$packages"/edge_asd-*.dist-info/entry_points.txt
rm -f "$packages"/edge_asd-*.dist-info/direct_url.json
# Not stripped: the libraries of wheels have been edited with patchelf, and strip breaks them.

# -I: nothing of the user, the current folder or PYTHONPATH is imported.
cat >"$home/bin/edge-asd" <<SCRIPT
#!/opt/edge-asd/bin/python3 -I
import sys

from edge_asd.cli import main

sys.exit(main())
SCRIPT
chmod 755 "$home/bin/edge-asd"
"$home/bin/python3" -I -m compileall -q -j 2 --invalidation-mode unchecked-hash \
  -s "$root" -p / "$packages" >"$build/compile.log" 2>&1 || { cat "$build/compile.log" >&2; exit 1; }

install -d "$root/usr/bin"
ln -s /opt/edge-asd/bin/edge-asd "$root/usr/bin/edge-asd"
install -Dm644 "$here/edge-asd@.service" "$root/usr/lib/systemd/system/edge-asd@.service"
install -Dm644 "$here/package/edge-asd.bash-completion" "$root/usr/share/bash-completion/completions/edge-asd"
install -d "$root/usr/share/man/man1"
sed "s/@VERSION@/$version/" "$here/package/edge-asd.1" | gzip -9n >"$root/usr/share/man/man1/edge-asd.1.gz"
chmod 644 "$root/usr/share/man/man1/edge-asd.1.gz"
"$here/package/install-documents.sh" "$root"

size=$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)
sed -e "s/@VERSION@/$package_version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$size/" \
  -e "s/@PYTHON@/$minor/; s/@NEXT_PYTHON@/$next/" "$here/package/control" >"$root/DEBIAN/control"
echo /etc/edge-asd/example.yaml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m755 "$here/package/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) \
  >"$root/DEBIAN/md5sums"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

deb=$out/edge-asd_${package_version}_$architecture.deb
dpkg-deb --root-owner-group -Zzstd -z12 --build "$root" "$deb" >/dev/null
echo "$deb: $(du -m "$deb" | cut -f1) MB, installed $((size / 1024)) MB"
