#!/usr/bin/env bash
# Installs what falx needs on Debian or Ubuntu. The one install script: the Makefile, CI and the Dockerfile call it.
#   install.sh packages        Debian packages to run (PACS for the demo, Python's venv)
#   install.sh packages-test   Debian packages and the viewer for the tests
#   install.sh python [PYTHON] virtual environment .venv with pinned packages
set -euo pipefail
cd "$(dirname "$0")/.."

RUN_PACKAGES=(python3-venv orthanc orthanc-dicomweb)
TEST_PACKAGES=(orthanc orthanc-dicomweb dcmtk dicom3tools pixelmed-apps default-jre-headless chromium postgresql)

missing() {
  local name
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || echo "$name"
  done
}

apt_install() {
  local wanted
  mapfile -t wanted < <(missing "$@")
  ((${#wanted[@]})) || return 0
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
      echo "falx needs Debian packages. Type this line, then run make again:" >&2
      echo "  sudo apt-get install -y --no-install-recommends ${wanted[*]}" >&2
      exit 1
    fi
    sudo=(sudo)
  fi
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
  # Debian starts the servers it installs; falx starts its own on free ports
  for service in orthanc postgresql; do
    case " ${wanted[*]} " in
      *" $service "*) "${sudo[@]}" systemctl disable --now "$service" >/dev/null 2>&1 || true ;;
    esac
  done
}

case "${1:-}" in
  packages) apt_install "${RUN_PACKAGES[@]}" ;;
  packages-test)
    command -v npm >/dev/null || TEST_PACKAGES+=(npm)
    apt_install "${TEST_PACKAGES[@]}"
    [ -x tests/viewer/fetch_ohif.sh ] && tests/viewer/fetch_ohif.sh
    ;;
  python)
    python=${2:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      echo "falx needs Python 3.11 or newer; $python is $("$python" --version)" >&2
      exit 1
    }
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/pip install -q -c constraints.txt -e ".[${FALX_EXTRAS:-dev}]"
    ;;
  *)
    echo "usage: install.sh packages | packages-test | python [PYTHON]" >&2
    exit 2
    ;;
esac
