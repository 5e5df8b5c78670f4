#!/usr/bin/env bash
# Builds the image, runs it the way a cautious stranger would, and compares with the bare run.
#
#   tests/container.sh RECIPE FOLDER BIN
#
# RECIPE has base-image.sh (makes the base image and FOLDER/env.sh, for machines without an image
# hub) and may be "-" where docker works; FOLDER is for everything that is made, the base image in
# it is used again; BIN has qsmref, installed from the same source.
set -euo pipefail
recipe=$1 bin=$(realpath "$3")
mkdir -p "$2"
folder=$(realpath "$2")
here=$(cd "$(dirname "$0")/.." && pwd)
image=localhost/qsmref:test
version=$("$bin/python" -c 'import qsmref; print(qsmref.__version__)')
if [ "$recipe" = - ]; then
    build=(docker build) engine=docker flags=()
else
    [ -x "$(command -v buildah)" ] || { echo "buildah is not installed (see $recipe/base-image.sh)" >&2; exit 127; }
    [ -s "$folder/base/env.sh" ] && [ -d "$folder/base/graph" ] || bash "$recipe/base-image.sh" "$folder/base"
    # shellcheck disable=SC1091
    . "$folder/base/env.sh"
    build=(buildah bud --isolation chroot --pull-never --layers) engine=podman
    # Unlike docker's, podman's --read-only leaves /tmp writable unless told otherwise.
    flags=(--read-only-tmpfs=false)
fi
echo "building $image $version"
"${build[@]}" --build-arg VERSION="$version" -t "$image" "$here" > "$folder/build.log" 2>&1 \
    || { tail -30 "$folder/build.log"; exit 1; }
echo "image: $("$engine" images --format '{{.Size}}' "$image"); version in its label:" \
    "$("$engine" inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$image")"
[ "$("$engine" inspect --format '{{.Config.User}}' "$image")" = 1000:1000 ]
[ "$("$engine" run --rm --network none "$image" --version)" = "qsmref $version" ]

cd "$folder"
rm -rf bids bare inside
"$bin/qsmref-phantom" dataset bids --matrix 48 56 44 --voxel-size 4 4 4 --seed 1 > /dev/null
chmod -R a+rX bids
mkdir -p bare inside/out inside/work
common=(-d truth=bids/derivatives/truth --nprocs 2 --omp-nthreads 1)
"$bin/qsmref" bids bare/out participant -w bare/work "${common[@]}" > bare/log.txt 2>&1 \
    || { tail -5 bare/log.txt; exit 1; }
echo "bare:      $(tail -1 bare/log.txt)"

# A user that no password file knows, nothing writable but two folders, no network.
user=$(id -u):$(id -g)
if [ "$(id -u)" = 0 ]; then
    user=23456:23456
    chown "$user" inside/out inside/work
fi
before=$(find bids -type f -exec sha256sum {} + | sort | sha256sum)
common=(-d truth=/data/derivatives/truth --nprocs 2 --omp-nthreads 1)
inside() {
    "$engine" run --rm -u "$user" --read-only "${flags[@]}" --network none \
        -v "$folder/bids:/data:ro" -v "$folder/inside/out:/out" -v "$folder/inside/work:/work" \
        "$image" /data /out participant "${common[@]}" > inside/log.txt 2>&1 \
        || { tail -5 inside/log.txt; exit 1; }
}
inside
echo "container: $(tail -1 inside/log.txt)"
[ "$before" = "$(find bids -type f -exec sha256sum {} + | sort | sha256sum)" ]
inside
grep -q ' inversion' inside/log.txt && { echo "the second run did work"; exit 1; }
echo "again:     $(tail -1 inside/log.txt)"

count=0
while read -r table; do
    cmp "bare/out/$table" "inside/out/$table"
    count=$((count + 1))
done < <(cd bare/out && find sub-* -name '*.tsv' | sort)
[ "$count" -gt 2 ]
echo "$count tables are those of the bare run, byte for byte"
if ! grep -q warning inside/log.txt; then echo "no warnings"; else grep warning inside/log.txt; fi
echo "test-container: all as it should be"
