#!/usr/bin/env bash
# Makes localhost/python:X.Y-slim-bookworm where no image can be pulled: Debian bookworm from the package mirror
# and this machine's own Python X.Y below /usr/local, laid out as in the official image. About a minute, 265 MB.
# For trying the Dockerfile out; release from the official base.
set -euo pipefail
version=${1:-3.12}
here=$(cd "$(dirname "$0")" && pwd)
name=localhost/python:$version-slim-bookworm

command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "making a base image needs root (mmdebstrap, chroot)" >&2; exit 1; }

# The interpreter must carry its own library, as pyenv's builds do; Debian's lives all over /usr.
prefix=""
for candidate in ${PYTHON_PREFIX:-} "$(pyenv prefix "$version" 2>/dev/null || true)" \
                 "$HOME"/.pyenv/versions/"$version".* /opt/hostedtoolcache/Python/"$version".*/*; do
  if [ -x "$candidate/bin/python$version" ] && [ -d "$candidate/lib/python$version" ]; then prefix=$candidate; break; fi
done
[ -n "$prefix" ] || { echo "no Python $version with its own prefix found; set PYTHON_PREFIX" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
echo "stand-in base: Debian bookworm and Python from $prefix"
mmdebstrap --quiet --variant=minbase \
  --include=ca-certificates,netbase,tzdata,libexpat1,libffi8,libssl3,libsqlite3-0,libreadline8,libuuid1,zlib1g,libbz2-1.0,liblzma5,libncursesw6,libtirpc3,libnsl2 \
  bookworm "$work/base.tar"
mkdir -p "$root/usr/local"
tar -C "$root" -xf "$work/base.tar" --exclude='./dev/*'
tar -C "$prefix" --exclude=site-packages --exclude=test --exclude=__pycache__ --exclude='*.a' -c bin lib include | tar -C "$root/usr/local" -x
mkdir -p "$root/usr/local/lib/python$version/site-packages"
chroot "$root" ldconfig
chroot "$root" "/usr/local/bin/python$version" -m ensurepip >/dev/null
sed -i "1s|.*|#!/usr/local/bin/python$version|" "$root"/usr/local/bin/pip3*
for link in python python3; do ln -sf "python$version" "$root/usr/local/bin/$link"; done
ln -sf pip3 "$root/usr/local/bin/pip"
tar -C "$root" -c . | "$here/engine" podman import --quiet \
  --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'ENV LANG=C.UTF-8' - "$name" >/dev/null
echo "stand-in base: $name"
