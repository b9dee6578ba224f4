#!/usr/bin/env bash
# Builds the image of ../Dockerfile on a Debian machine that has no container engine.
#
# debootstrap makes the base under the name the Dockerfile asks for, buildah does the rest with
# plain folders (vfs) and chroot, so neither a daemon nor kernel features are needed: it works
# inside a container or a locked-down virtual machine. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: sudo docker/build_without_engine.sh [--install] [--run] [SCRATCH]

Builds the image ct-segmentation from the commit that is checked out.

  --install  first install what is missing here: debootstrap, buildah, ca-certificates
  --run      then run the image's own command (dvc repro) as its own user
  SCRATCH    empty or new folder that receives the image; default: a new one under $TMPDIR or
             /var/tmp. 20 GB must be free.

The machine's certificates, proxies, Debian mirror and package index are used for the build and
do not end up in the image.

Example: sudo docker/build_without_engine.sh --install --run
TEXT
}

fail() { echo "error: $1" >&2; exit "${2:-1}"; }
say() { printf '\n== %s\n' "$1"; }

install=false run=false scratch=""
for argument in "$@"; do
    case $argument in
        --install) install=true ;;
        --run) run=true ;;
        --help|-h) usage; exit 0 ;;
        -*) usage >&2; fail "unknown option $argument" 2 ;;
        *) [ -z "$scratch" ] || fail "got two folders, $scratch and $argument; expected one" 2
           scratch=$argument ;;
    esac
done

project=$(cd "$(dirname "$0")/.." && pwd)
image=ct-segmentation
[ "$(id -u)" -eq 0 ] || fail "debootstrap and chroot need root, this is $(id -un). Use sudo." 2
git -c safe.directory="$project" -C "$project" rev-parse --quiet --verify HEAD > /dev/null ||
    fail "$project has no git commit, and the image is made from one. Run git commit first."

if $install; then
    apt-get update
    apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends \
        debootstrap buildah ca-certificates
fi
for tool in debootstrap buildah; do
    command -v "$tool" > /dev/null || fail "$tool is not installed. Run this again with --install."
done

if [ -z "$scratch" ]; then
    scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/ct-segmentation-XXXXXX")
elif [ -n "$(ls -A "$scratch" 2> /dev/null)" ]; then
    fail "$scratch is not empty. Name an empty or new folder." 2
fi
mkdir -p "$scratch"/{base,apt,home/.config/pip,storage,run,tmp}
scratch=$(cd "$scratch" && pwd)
trap '[ $? -eq 0 ] || echo "Not finished. What was made so far is in $scratch." >&2' EXIT
export TMPDIR=$scratch/tmp  # buildah keeps whole layers here while it commits
storage=(buildah --root "$scratch/storage" --runroot "$scratch/run" --storage-driver vfs)

# The one place that names the base is the Dockerfile: debian:bookworm-slim -> bookworm.
base=$(sed -n 's/^FROM \(debian:[^ ]*\).*/\1/p' "$project/Dockerfile" | head -n 1)
release=${base#debian:} release=${release%-slim}

# apt itself says where this machine takes Debian from, whatever the form of its sources. A host
# of another Debian release lends its mirrors; the release asked for stays the Dockerfile's.
# shellcheck disable=SC1091  # the file is the machine's
host_release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
# shellcheck disable=SC2016  # apt fills these in, not the shell
sources=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' | awk '$3 == "main"' | sort -u |
    sed "s, $host_release\(-[a-z]*\)\? , $release\1 ,")
mirror=$(awk -v release="$release" '$2 == release { print $1; exit }' <<< "$sources")
[ -n "$mirror" ] || fail "apt knows no Debian mirror for $release. Run apt-get update first."
proxy=$(apt-config shell proxy Acquire::http::Proxy) && eval "$proxy"
[ -z "${proxy:-}" ] || export http_proxy=$proxy

say "Base $base"
debootstrap --variant=minbase "$release" "$scratch/base" "$mirror" > "$scratch/debootstrap.log" ||
    fail "debootstrap failed, see $scratch/debootstrap.log"
# What debootstrap took from this machine (mirror, name server, host name) stays here.
rm -rf "$scratch"/base/{etc/apt/sources.list,etc/resolv.conf,etc/hostname,dev/*} \
    "$scratch"/base/var/{log/*.log,lib/apt/lists/*,cache/apt/*}
container=$("${storage[@]}" from scratch)
"${storage[@]}" add --quiet "$container" "$scratch/base" / > /dev/null
"${storage[@]}" config --cmd bash "$container"
"${storage[@]}" commit --quiet --rm "$container" "$base" > /dev/null

# For the time of the build /etc/apt and /root are folders of this machine, so nothing of them is
# committed: apt gets the mirror, the proxy and the checks; pip gets its index; both get the
# certificates, which stand in /root because installing a package may rewrite /etc/ssl/certs.
# Package folders of this machine are left out: the lock's hashes admit the same files anyway.
cp -a "$scratch/base/etc/apt/." "$scratch/apt/"
rm -rf --one-file-system "$scratch/base"
while read -r source; do echo "deb $source"; done <<< "$sources" > "$scratch/apt/sources.list"
{
    apt-config dump Acquire | grep -E '^Acquire::(https?|Check-|Force)' || true
    echo 'Acquire::https::CAInfo "/root/certificates.crt";'
} > "$scratch/apt/apt.conf.d/99host"
options='default-timeout|extra-index-url|index-url|proxy|retries|timeout|trusted-host'
# Settings from the environment are listed first and win, as they do in pip.
settings=$(python3 -m pip config list 2> /dev/null |
    sed -E "s/^(:env:|[a-z]+)\.([a-z-]+)='(.*)'$/\2 = \3/; s/\\\\n/ /g; s, *file:[^ ]*,,g" |
    awk '!seen[$1]++' || true)
certificates=$(sed -n 's/^cert = //p' <<< "$settings")
cp -L "${certificates:-/etc/ssl/certs/ca-certificates.crt}" "$scratch/home/certificates.crt" ||
    fail "this machine has no certificates. Install the package ca-certificates."
{
    echo "[global]"
    echo "cert = /root/certificates.crt"
    grep -E "^($options) = ?[^ ]" <<< "$settings" || true
} > "$scratch/home/.config/pip/pip.conf"

say "Image $image"
"${storage[@]}" bud --isolation chroot --pull-never --tag "$image" \
    --volume "$scratch/apt:/etc/apt:ro" \
    --volume "$scratch/home:/root" \
    "$project"
"${storage[@]}" rmi --prune > /dev/null  # the stages that are not in the image
rm -rf --one-file-system "${scratch:?}"/{apt,home,tmp/*}
"${storage[@]}" images "$image"

if $run; then
    container=$("${storage[@]}" from --pull-never "$image")
    mapfile -t command < <("${storage[@]}" inspect --type image \
        --format '{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' "$image" | grep .)
    say "Running: ${command[*]@Q}"
    "${storage[@]}" run --isolation chroot "$container" -- "${command[@]}"
    say "Finished. Its project folder: $("${storage[@]}" mount "$container")/project"
fi

cat <<TEXT

Image:   $image, in $scratch/storage
Use:     B="${storage[*]}"
         \$B run --isolation chroot "\$(\$B from --pull-never $image)" -- dvc status
Pack:    \$B push $image docker-archive:$image.tar:$image:latest   (then elsewhere: docker load)
Remove:  rm -rf $scratch
TEXT
