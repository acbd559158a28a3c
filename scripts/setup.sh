#!/usr/bin/env bash
# Makes .venv with this project and the extras named ("scripts/setup.sh torch,dev"), and installs
# the Debian packages that the emitted C++ and the tests need. Runs again only when pyproject.toml changed.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-}"
venv=.venv
stamp="$venv/.setup-${extras//,/-}"

say() { printf 'setup: %s\n' "$*"; }

install_debian() {
    # Installs packages where the user has the right; says what is missing where not.
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' \
            || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local run=()
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then run=(sudo -n); else
            say "missing Debian packages: ${missing[*]} (no right to install them; continuing)"
            return
        fi
    fi
    say "installing Debian packages: ${missing[*]}"
    "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

command -v python3 >/dev/null || { say "python3 (3.11 or newer) is needed"; exit 1; }
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || { say "Python 3.11 or newer is needed, found $(python3 --version)"; exit 1; }

if command -v dpkg-query >/dev/null; then
    python3 -c 'import ensurepip' 2>/dev/null || install_debian python3-venv
    command -v g++ >/dev/null || install_debian g++
    command -v make >/dev/null || install_debian make
    # The tests look at pages in a real browser; without it they say that they were skipped.
    case ",$extras," in *,dev,*) command -v chromium >/dev/null || install_debian chromium ;; esac
fi

digest=$(sha256sum pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$digest" ]; then exit 0; fi

[ -x "$venv/bin/python" ] || { say "making $venv"; python3 -m venv "$venv"; }
target="."
[ -n "$extras" ] && target=".[$extras]"
say "installing $target (a few minutes the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$target"
echo "$digest" >"$stamp"
