#!/bin/sh
# Fetch the OHIF viewer (built, from npm) into cache/ohif, once. The viewer test serves it beside a real PACS.
set -eu
version=3.13.2
sha512=5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10
folder="$(cd "$(dirname "$0")/../.." && pwd)/cache/ohif"

if [ -f "$folder/$version/dist/index.html" ]; then
    exit 0
fi
command -v npm >/dev/null || { echo "npm is not installed: apt-get install npm" >&2; exit 1; }
mkdir -p "$folder"
scratch="$(mktemp -d "$folder/fetch.XXXXXX")"
trap 'rm -rf "$scratch"' EXIT
(cd "$scratch" && npm pack --silent "@ohif/app@$version" >/dev/null)
echo "$sha512  $scratch/ohif-app-$version.tgz" | sha512sum --check --quiet
tar -xzf "$scratch/ohif-app-$version.tgz" -C "$scratch" package/dist package/LICENSE
rm -rf "${folder:?}/$version"
mv "$scratch/package" "$folder/$version"
echo "OHIF $version is in $folder/$version"
