#!/bin/sh
# Boot Debian's own kernel under qemu (software emulation, no KVM needed) and run a command there, as root, in a copy of
# the project. It is the only place where a test may take ALSA hardware away: the module snd-aloop plays the sound cards.
#
#   tests/vm/run.sh BUILD_FOLDER SECONDS COMMAND...      (its words together are a line for sh)
#
# Needs root, qemu-system-x86, mmdebstrap, cpio and kmod (`make test-vm` installs them). The guest's root is made once
# in BUILD_FOLDER (about 35 s); the project travels in a second, small archive at every run, so a change in it costs
# nothing. The command's output comes out here; the exit status is the command's (at most 60), 124 when the time is
# over, 125 when the guest died. The kernel's words: BUILD_FOLDER/console.log.
set -eu
build=$1 limit=$2
shift 2
here=$(dirname "$(realpath "$0")")
project=$(realpath "$here/../..")
python=$(realpath --no-symlinks "$(command -v "${PYTHON:-python3}")")
mkdir -p "$build" && cd "$build"
exec 9>lock && flock 9

"$python" -c 'import sys, tomllib
print(*tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"], "pytest", sep="\n")' \
    "$project/pyproject.toml" >needs.txt
stamp=$(cat needs.txt "$here/run.sh" "$here/init" | sha256sum)
if [ "$(cat stamp 2>/dev/null)" != "$stamp" ]; then
    rm -rf root stamp
    # "extract" unpacks and configures nothing: nothing here needs it, it is fast, and no initramfs is made.
    mmdebstrap --quiet --variant=extract --aptopt='APT::Install-Recommends "false"' --include=linux-image-amd64 \
        --include=bash,coreutils,dash,findutils,grep,iproute2,kmod,libc-bin,mount,procps,sed,util-linux \
        --include=python3,libportaudio2,libpulse0,alsa-utils bookworm root /etc/apt/sources.list.d/debian.sources
    # Wheels for the guest's Python 3.11, whatever the host's is.
    "$python" -m pip install -qq --no-warn-conflicts --disable-pip-version-check --root-user-action=ignore \
        --target root/usr/lib/python3/dist-packages --python-version 3.11 --only-binary=:all: \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 -r needs.txt
    cp "$here/init" root/init && chmod +x root/init
    cp root/boot/vmlinuz-* vmlinuz
    kernel=$(ls root/lib/modules)
    find "root/lib/modules/$kernel/kernel" -mindepth 1 -maxdepth 1 ! -name sound -exec rm -rf {} +
    depmod -b root "$kernel"
    chroot root ldconfig # sounddevice finds PortAudio through its cache
    chroot root python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.11 >/dev/null || true # slow in the guest
    echo root:x:0:0:root:/root:/bin/bash >root/etc/passwd
    # 330 MB instead of 600: all of it is unpacked at every boot.
    (cd root && rm -rf boot usr/share/doc usr/share/man usr/share/locale usr/share/perl* usr/lib/*/perl* lib/udev var/*)
    (cd root && find . -path ./dev/\* -o -print | cpio --quiet -o -H newc) >root.cpio
    rm -rf root
    echo "$stamp" >stamp
fi

rm -rf stage && mkdir -p stage/project
cp -r "$project/edge_asd" "$project/tests" "$project/pyproject.toml" stage/project/
mkdir stage/project/edge_asd-0.dist-info # the project asks for its own version
printf 'Metadata-Version: 2.1\nName: edge-asd\nVersion: 0\n' >stage/project/edge_asd-0.dist-info/METADATA
echo "$*" >stage/command
(cd stage && find . -name __pycache__ -prune -o -print | cpio --quiet -o -H newc) | cat root.cpio - >initrd

# ttyS0 is the kernel's, ttyS1 the command's. numpy needs x86-64-v2: Nehalem; "max" is slower to emulate. 2 GB: the
# archive and what comes out of it are in memory together. Writing to isa-debug-exit ends qemu, see init.
status=0
timeout --foreground "$limit" qemu-system-x86_64 -accel tcg -cpu Nehalem -smp 1 -m 2048 -nodefaults \
    -no-user-config -display none -no-reboot -kernel vmlinuz -initrd initrd \
    -append 'console=ttyS0 rootfstype=ramfs mitigations=off panic=-1' -device isa-debug-exit,iobase=0x501,iosize=1 \
    -serial file:console.log -serial stdio </dev/null || status=$?
case $status in
124) echo "run.sh: not done after $limit s" >&2 && exit 124 ;;
[3579] | [1-9][13579] | 1[012][13579]) exit $((status / 2 - 1)) ;;
*) tail -n 20 console.log >&2 && exit 125 ;;
esac
