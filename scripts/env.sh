# shellcheck shell=bash
# Sourced by the other scripts: the environment in .venv, made or brought up to date when it has to be.
#
#   root            the checkout
#   python          the environment's interpreter, after need_env
#   need_env [dev]  returns at once when .venv is complete; everything it says goes to stderr
#   need_chromium   installs the browser of the tests where there is none, on Debian and Ubuntu, as root or with sudo

root=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
python=$root/.venv/bin/python

# What the environment depends on. scripts/make_env.py stores this line once all is installed.
env_stamp() {
    { cat "$root/pyproject.toml" "$root/scripts/constraints.txt" "$root/scripts/make_env.py" && echo "$root"; } | cksum
}

find_python() {
    local candidate found="" version
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        # A version manager's shim may exist and not run, so the interpreter itself is asked.
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        found+="${found:+, }$candidate is $version"
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    {
        echo "sgdiff-app needs Python 3.11 or newer, with its venv module (${found:-no Python was found on PATH})."
        echo "Install one, or name it: PYTHON=/path/to/python3.12 $0 ..."
        echo "On Debian and Ubuntu the venv module is a package of its own: apt install python3-venv"
    } >&2
    return 1
}

need_env() {
    local stamp marker=$root/.venv/.complete${1:+-$1} stored="" base
    stamp=$(env_stamp) || exit 1
    if [[ -r $marker ]]; then read -r stored <"$marker" || true; fi
    if [[ $stored == "$stamp" && -x $python ]]; then return; fi
    base=$(find_python) || exit 1
    "$base" "$root/scripts/make_env.py" "$root" "$stamp" "$@" >&2 || exit
}

need_chromium() {
    local browser sudo=()
    for browser in chromium chromium-browser google-chrome; do
        if command -v "$browser" >/dev/null; then return; fi
    done
    if ((EUID)); then sudo=(sudo -n); fi
    {
        DEBIAN_FRONTEND=noninteractive ${sudo[@]+"${sudo[@]}"} apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive ${sudo[@]+"${sudo[@]}"} apt-get install -qq -y --no-install-recommends chromium
    } >&2 || {
        echo "the tests of the page need a browser: install Chromium (Debian and Ubuntu: apt install chromium)" >&2
        return 1
    }
}
