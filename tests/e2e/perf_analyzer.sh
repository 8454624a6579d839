#!/bin/sh
# Unpack Triton's perf_analyzer into a folder, from which `FOLDER/perf_analyzer` runs on any Linux (x86-64).
#
#     tests/e2e/perf_analyzer.sh FOLDER [PYTHON]
#
# Its wheel needs a newer C library than many systems have. So the loader and the libraries of a newer Debian are unpacked
# beside it, with apt, and nothing is installed. FOLDER must not exist, or be empty.
set -eu
mkdir -p "$1"
folder=$(realpath "$1") python=${2:-python3}
"$python" -m pip download -q --no-deps --only-binary=:all: --platform manylinux_2_38_x86_64 -d "$folder" perf-analyzer
"$python" -m zipfile -e "$folder"/perf_analyzer-*.whl "$folder/wheel"
cd "$folder"
mkdir -p apt/lists/partial apt/archives/partial
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] http://deb.debian.org/debian trixie main" > apt/sources.list
debian() {
    apt-get -qq -o Dir::Etc::sourcelist="$folder/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$folder/apt" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$folder/apt" -o APT::Sandbox::User=root "$@"
}
debian update
debian download libc6 libstdc++6 libgcc-s1 libssl3t64 zlib1g
for package in ./*.deb; do dpkg-deb -x "$package" system; done
chmod +x wheel/perf_analyzer/bin/perf_analyzer
rm -rf apt ./*.deb ./*.whl
cat > perf_analyzer <<'EOF'
#!/bin/sh
here=$(dirname "$(realpath "$0")") libraries=$here/system/usr/lib/x86_64-linux-gnu
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$here/wheel/perf_analyzer/bin/perf_analyzer" "$@"
EOF
chmod +x perf_analyzer
